/** The commands of `portcullis` that pages show: each must exist, with its flags and as many arguments as it has. */

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Command, Option } from 'commander';
import { describeProgram } from '../../cli/src/program.js';
import { commandsOf } from '../support/documented-commands.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';

describe('the commands on the pages', () => {
  it('exist, with their flags and arguments', async () => {
    const program = describeProgram();
    const faults: string[] = [];
    let count = 0;
    for (const page of await pages()) {
      for (const words of commandsOf(await readFile(join(PROJECT_FOLDER, page), 'utf8'))) {
        count += 1;
        const fault = faultOf(program, words);
        if (fault !== undefined) faults.push(`${page}: portcullis ${words.join(' ')}: ${fault}`);
      }
    }
    expect(faults).to.deep.equal([]);
    expect(count).to.be.at.least(50);
  });

  it('are compared with what there is', () => {
    const program = describeProgram();
    const faults = (text: string) =>
      commandsOf(`\`\`\`sh\n${text}\n\`\`\``).map((words) => faultOf(program, words));
    expect(faults('portcullis sessions alice')).to.deep.equal([undefined]);
    expect(faults('TOKEN=$(npx portcullis --context a token) && portcullis key list')).to.deep.equal([
      undefined,
      'there is no command key',
    ]);
    expect(faults('portcullis revoke --usr alice')).to.deep.equal(['there is no flag --usr']);
    expect(faults('portcullis sessions')).to.deep.equal(['0 arguments']);
    expect(faults('portcullis revoke \\\n  --user "a b" --reason')).to.deep.equal(['--reason has no value']);
    expect(faults('portcullis keys rotate now')).to.deep.equal(['1 arguments']);
  });
});

async function pages(): Promise<string[]> {
  const docs = await readdir(join(PROJECT_FOLDER, 'docs'), { recursive: true });
  const outside = ['README.md', 'cli/README.md', 'gate/README.md', 'interceptors/README.md'];
  const examples = await readdir(join(PROJECT_FOLDER, 'examples'), { recursive: true });
  return [
    ...outside,
    // The reference of the command line is generated from the same tree, and has no commands to paste.
    ...docs.filter((file) => file !== join('reference', 'cli.md')).map((file) => join('docs', file)),
    ...examples.map((file) => join('examples', file)),
  ].filter((file) => file.endsWith('.md') && !file.includes('node_modules'));
}

/** What is wrong with a command; undefined if nothing is. */
function faultOf(program: Command, words: readonly string[]): string | undefined {
  let command = program;
  let given = 0;
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word.startsWith('--')) {
      const [flag = '', value] = word.split('=', 2);
      const option = optionOf(command, program, flag);
      if (option === undefined) return flag === '--help' ? undefined : `there is no flag ${flag}`;
      if (!option.required || value !== undefined) continue;
      if (rest.shift() === undefined) return `${flag} has no value`;
      continue;
    }
    const found = subcommandOf(command, word);
    if (found !== undefined && given === 0) {
      command = found;
    } else {
      if (command === program) return `there is no command ${word}`;
      // `portcullis receipt 1` is short for `portcullis receipt show 1`.
      if (given === 0 && command.name() === 'receipt') command = subcommandOf(command, 'show') ?? command;
      given += 1;
    }
  }
  const wanted = command.registeredArguments;
  const least = wanted.filter(({ required }) => required).length;
  return given < least || given > wanted.length ? `${given} arguments` : undefined;
}

function subcommandOf(command: Command, name: string): Command | undefined {
  return command.commands.find((one) => one.name() === name || one.aliases().includes(name));
}

function optionOf(command: Command, program: Command, flag: string): Option | undefined {
  return [command, program].flatMap(({ options }) => options).find(({ long }) => long === flag);
}
