/** `portcullis completion`: what a shell asks when Tab is pressed. */

import type { Command } from 'commander';
import type { Cli } from '../cli.js';
import { CommandError, EXIT } from '../failures.js';

/** The hidden command that the scripts call. */
const COMPLETE = 'complete-words';

const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `_portcullis() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(portcullis ${COMPLETE} -- "\${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _portcullis portcullis
`,
  zsh: `#compdef portcullis
_portcullis() {
  local -a candidates
  candidates=("\${(@f)$(portcullis ${COMPLETE} -- "\${(@)words[2,CURRENT-1]}" 2>/dev/null)}")
  compadd -- $candidates
}
compdef _portcullis portcullis
`,
  fish: `function __portcullis_complete
  set -l words (commandline -opc)
  portcullis ${COMPLETE} -- $words[2..-1] 2>/dev/null
end
complete -c portcullis -f -a '(__portcullis_complete)'
`,
};

export function addCompletionCommands(program: Command, cli: Cli): void {
  program
    .command('completion <shell>')
    .description('print the completion for bash, zsh or fish')
    .addHelpText(
      'after',
      '\nbash: source <(portcullis completion bash)\nzsh:  source <(portcullis completion zsh)\nfish: portcullis completion fish | source',
    )
    .action((shell: string) => {
      const script = SCRIPTS[shell];
      if (script === undefined)
        throw new CommandError('Expected bash, zsh or fish.', { exitCode: EXIT.usage });
      cli.terminal().output.write(script);
    });
  program
    .command(COMPLETE, { hidden: true })
    .argument('[words...]')
    .allowUnknownOption()
    .action((words: string[]) => {
      cli.terminal().output.write(
        candidatesOf(program, words)
          .map((word) => `${word}\n`)
          .join(''),
      );
    });
}

/** What can come after these words: subcommands and options. */
function candidatesOf(program: Command, words: readonly string[]): readonly string[] {
  let command = program;
  for (const word of words) {
    const next = command.commands.find((candidate) => candidate.name() === word);
    if (next !== undefined) command = next;
  }
  const visible = command.createHelp();
  const options = [...command.options, ...(command === program ? [] : program.options)];
  return [
    ...visible
      .visibleCommands(command)
      .map((candidate) => candidate.name())
      .filter((name) => name !== 'help'),
    ...options.flatMap(({ long }) => long ?? []),
    '--help',
  ];
}
