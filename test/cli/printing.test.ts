/** What the command line prints of texts that come from auth. */

import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { describeFailure } from '../../cli/src/failures.js';
import { note, writeResult } from '../../cli/src/terminal.js';

/** Escapes of a terminal, a carriage return, the single byte of CSI, and a text that is turned around. */
const HOSTILE = '\u001b[2J\rok\u009b31m\u202etxt\u2069';
const HARMLESS = '�[2J�ok�31m�txt�';

describe('what the command line prints', () => {
  function terminalOf(json: boolean) {
    const [output, notes] = [new PassThrough(), new PassThrough()];
    return { terminal: { input: new PassThrough(), output, notes, json }, output, notes };
  }

  it('moves no cursor and turns no text around, in results, notes and failures', () => {
    const { terminal, output, notes } = terminalOf(false);
    writeResult(terminal, {}, () => HOSTILE);
    note(terminal, HOSTILE);
    expect(String(output.read())).to.equal(`${HARMLESS}\n`);
    expect(String(notes.read())).to.equal(`${HARMLESS}\n`);
    expect(describeFailure(new Error(HOSTILE)).text).to.equal(`Error: ${HARMLESS}`);
  });

  it('is JSON with escapes, which has the same value', () => {
    const { terminal, output } = terminalOf(true);
    writeResult(terminal, { text: HOSTILE }, () => '');
    const printed = String(output.read());
    expect(printed).to.not.match(/[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/u);
    expect(JSON.parse(printed)).to.deep.equal({ text: HOSTILE });
  });
});
