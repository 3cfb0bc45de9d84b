/** The commands of `portcullis` that pages show. */

/** A word of a shell: quoted, or without spaces. */
const WORD = /'[^']*'|"[^"]*"|[^\s'"]+/g;

/** What ends a command: an operator of the shell, or a comment. */
const END = /^(?:\||\|\||&&|&|;|<|>|>>|2>.*|#.*)$/;

/** The words after `portcullis` of each command in the blocks for a shell. */
export function commandsOf(page: string): string[][] {
  const blocks = [...page.matchAll(/^```(?:sh|bash|console)[^\n]*\n(.*?)^```/gms)].map(
    ([, block = '']) => block,
  );
  return blocks
    .flatMap((block) => block.replaceAll('\\\n', ' ').replaceAll('; ', ' ; ').split('\n'))
    .flatMap((line) =>
      [...line.matchAll(/(?:^|npx |\(|\| |&& )portcullis(?=\s)((?:'[^']*'|"[^"]*"|[^'")])*)/g)].flatMap(
        ([, rest = '']) => splitOff(rest),
      ),
    );
}

/** A match goes on behind an operator of the shell, where another command of ours may stand. */
function splitOff(rest: string): string[][] {
  const words = rest.match(WORD) ?? [];
  const end = words.findIndex((word) => END.test(word));
  if (end === -1) return [words];
  const after = words.slice(end + 1);
  const next = after.indexOf('portcullis');
  const command = words.slice(0, end);
  return next === -1 ? [command] : [command, ...splitOff(after.slice(next + 1).join(' '))];
}
