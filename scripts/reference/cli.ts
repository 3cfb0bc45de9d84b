/** The reference of the command line: every command with its options, and the exit codes, from the program itself. */

import type { Command } from 'commander';
import { EXIT_MEANINGS } from '../../cli/src/failures.js';
import { describeProgram } from '../../cli/src/program.js';

/** The page. */
export function cliPage(): string {
  const program = describeProgram();
  const commands = commandsOf(program, []);
  return `${[
    '# Command line',
    '',
    'Generated from the program by `npm run generate`. [How to install it](../../cli/README.md), and',
    '[what to do in an incident](../operating/incident.md).',
    '',
    '## Options of every command',
    '',
    ...optionTable(program),
    '',
    '## Exit codes',
    '',
    '| code | meaning |',
    '| ---- | ------- |',
    ...EXIT_MEANINGS.map(([code, meaning]) => `| ${code} | ${cell(meaning)} |`),
    '',
    'Results go to standard output, everything else to standard error. A reader that closes the pipe ends the command with 0.',
    '`NO_COLOR` turns colours off; without a terminal there are none.',
    '',
    '## Commands',
    '',
    ...commands.flatMap(({ words, command }) => [
      `### ${words.join(' ')}`,
      '',
      `${sentence(command.description())}`,
      '',
      `    portcullis ${words.join(' ')} ${usageOf(command)}`.trimEnd(),
      '',
      ...(command.options.length === 0 ? [] : [...optionTable(command), '']),
    ]),
  ]
    .join('\n')
    .trimEnd()}\n`;
}

function commandsOf(
  command: Command,
  words: readonly string[],
): { words: readonly string[]; command: Command }[] {
  const visible = command
    .createHelp()
    .visibleCommands(command)
    .filter((one) => one.name() !== 'help');
  return visible.flatMap((one) => {
    const path = [...words, one.name()];
    const own = { words: path, command: one };
    if (one.commands.length === 0) return [own];
    // A command with options of its own also runs without a further word.
    return [...(one.options.length > 0 ? [own] : []), ...commandsOf(one, path)];
  });
}

/** The arguments and options, without the words of the command. */
function usageOf(command: Command): string {
  const { registeredArguments, options } = command;
  const args = registeredArguments.map((one) => (one.required ? `<${one.name()}>` : `[${one.name()}]`));
  return [...args, ...(options.length === 0 ? [] : ['[options]'])].join(' ');
}

function optionTable(command: Command): string[] {
  return [
    '| option | meaning |',
    '| ------ | ------- |',
    ...command.options
      .filter(({ hidden }) => !hidden)
      .map((option) => {
        const { defaultValue, envVar, mandatory } = option;
        const notes = [
          ...(mandatory ? ['required'] : []),
          ...(defaultValue === undefined || Array.isArray(defaultValue)
            ? []
            : [`default: ${String(defaultValue)}`]),
          ...(envVar === undefined ? [] : [`also \`${envVar}\``]),
        ];
        const text = `${option.description}${notes.length === 0 ? '' : ` (${notes.join('; ')})`}`;
        return `| \`${cell(option.flags)}\` | ${cell(text)} |`;
      }),
  ];
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<->', '-');
}
