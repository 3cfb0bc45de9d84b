/** Comments of the sources, as Markdown. */

/** A comment, parted into its text and its tags. */
export interface Comment {
  /** Its paragraphs. */
  readonly text: readonly string[];
  readonly params: readonly string[];
  readonly returns: readonly string[];
  readonly throws: readonly string[];
  readonly examples: readonly string[];
}

/** The anchor of a name that has a heading in the page. */
export type LinkTo = (name: string) => string | undefined;

/** `Default: 4 MiB.`, or the same at the end of a sentence. */
const DEFAULT = /(?:^|[;,.] ?|\s)[Dd]efault: ([\s\S]+?)(?:\.(?=\s|$)|$)/;

/** @param comment - the comment, without its marks */
export function parseComment(comment: string): Comment {
  const [text = '', ...tags] = comment.split(/(?:^|\s)@(?=(?:param|returns|throws|example)\b)/);
  const of = (name: string): string[] =>
    tags.filter((tag) => tag.startsWith(name)).map((tag) => tag.slice(name.length).trim());
  return {
    text: text.trim().split(/\n\s*\n/),
    params: of('param'),
    returns: of('returns'),
    throws: of('throws'),
    examples: of('example'),
  };
}

/** The comment below a heading. */
export function blockOf({ text, params, returns, throws, examples }: Comment, linkTo: LinkTo): string {
  return [
    ...text.map((paragraph) => itemsOf(paragraph, linkTo)),
    params.map((param) => `- ${parameter(param, linkTo)}`).join('\n'),
    ...returns.map((result) => `Returns ${inline(result, linkTo)}.`),
    ...throws.map((error) => `Throws ${inline(error, linkTo)}.`),
    ...examples.map((example) => `\`\`\`ts\n${example}\n\`\`\``),
  ]
    .filter((block) => block !== '')
    .join('\n\n');
}

/** The comment in the row of a table, and the default that it names. */
export function cellOf(
  comment: Comment,
  linkTo: LinkTo,
): { readonly meaning: string; readonly byDefault: string } {
  const whole = comment.text.join(' ').replace(/\s+/g, ' ').trim();
  const [, byDefault = ''] = DEFAULT.exec(whole) ?? [];
  const rest =
    byDefault === '' ? whole : whole.replace(DEFAULT, (found) => (/^[;,.]/.test(found) ? '.' : ''));
  const meaning = [
    inline(rest.trim(), linkTo),
    ...comment.params.map((param) => `${parameter(param, linkTo)}.`),
    ...comment.returns.map((result) => `Returns ${inline(result, linkTo)}.`),
    ...comment.throws.map((error) => `Throws ${inline(error, linkTo)}.`),
  ]
    .filter((part) => part !== '')
    .join(' ');
  return {
    meaning: meaning.replaceAll('|', '\\|'),
    byDefault: inline(byDefault, linkTo).replaceAll('|', '\\|'),
  };
}

function parameter(param: string, linkTo: LinkTo): string {
  const [name = '', meaning = ''] = param.split(/ - ([\s\S]*)/);
  return `\`${name}\`: ${inline(meaning, linkTo)}`;
}

/** A paragraph, and the items of a list in it, each in one line. */
function itemsOf(paragraph: string, linkTo: LinkTo): string {
  const [lead = '', ...items] = paragraph.split(/(?:^|\n)- /);
  const list = items.map((item) => `- ${inline(item, linkTo)}`).join('\n');
  return [inline(lead, linkTo), list].filter((part) => part !== '').join('\n\n');
}

/** A paragraph in one line, with its links. */
function inline(text: string, linkTo: LinkTo): string {
  return text
    .replace(/\{@link ([^}]+)\}/g, (_link, name: string) => {
      const anchor = linkTo(name);
      return anchor === undefined ? `\`${name}\`` : `[\`${name}\`](#${anchor})`;
    })
    .replace(/\s+/g, ' ')
    .trim();
}
