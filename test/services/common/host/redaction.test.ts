/** How the search for secrets behaves on texts that an attacker has chosen. */

import { expect } from 'chai';
import { cutText, REDACTED, redactFields, redactText } from '../../../../services/common/host/redaction.js';
import { growth } from '../../../support/growth.js';

/** Pieces that lead each pattern into its longest search, repeated to any length. */
const PUMPS = [
  'a-',
  'eyJ-',
  'eyJaaaaa-',
  'eyJaaaaa.a.',
  'Bearer ',
  'Bearer\t',
  ' ',
  'a:',
  'pcr_',
  'pcr_a',
  'pcs_aaaaaaaa.',
  '://',
  '://a:',
  '://a:b',
  'x://y:z@',
  'a+.-',
  '-----BEGIN ',
  '-----BEGIN A',
  '-----BEGIN PRIVATE KEY',
  '-----BEGIN PRIVATE KEY-----',
  '-----END ',
  'PRIVATE KEY ',
  '"',
  '\\',
];

describe('the search for secrets', () => {
  it('takes time in proportion to the text, whatever the text is', () => {
    for (const pump of PUMPS) {
      for (const end of ['', '!', '@', '\u0080']) {
        const text = (length: number): string => pump.repeat(Math.ceil(length / pump.length)) + end;
        expect(
          growth((length) => redactText(text(length))),
          JSON.stringify(pump + end),
        ).to.be.below(4);
      }
    }
  });

  it('redacts a token wherever in a run of its characters it begins', () => {
    for (const before of ['', ' ', 'a-', 'x.y-', 'eyJ-']) {
      const text = `${before}eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2ln`;
      expect(redactText(text))
        .to.match(/\[redacted\]$/)
        .and.not.include('c2ln');
    }
  });

  it('redacts refresh tokens, reset tokens and client secrets in texts', () => {
    const random = 'q83vEjRWeJA-_sTd7u8BI0VniavN7_AA';
    for (const prefix of ['pcr_', 'pcp_', 'pcs_']) {
      expect(redactText(`no such token: "${prefix}${random}"`)).to.equal(`no such token: "${REDACTED}"`);
      expect(redactText(`/x/${prefix}${random.slice(0, 12)}`)).to.equal(`/x/${REDACTED}`);
    }
  });

  it('redacts a password that contains an @', () => {
    expect(redactText('nats://auth:a@b@127.0.0.1:4222')).to.equal(`nats://auth:${REDACTED}@127.0.0.1:4222`);
  });

  it('bounds the texts of one line together', () => {
    const fields = redactFields({ list: Array.from({ length: 100 }, () => 'word '.repeat(800)) });
    expect(JSON.stringify(fields).length).to.be.below(40_000);
  });

  it('cuts at a blank, and says how much is missing', () => {
    expect(cutText('short', 10)).to.equal('short');
    expect(cutText('one two three', 10)).to.equal('one two [5 more characters]');
    expect(cutText('x'.repeat(100), 10)).to.equal('[100 more characters]');
  });
});
