/** HTML that is safe by default: every value in a template is escaped unless it is HTML itself. */

/** A piece of HTML. */
export class Html {
  readonly text: string;

  /** @param text - HTML, not escaped again */
  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a template: text and numbers are escaped; undefined and false leave nothing. */
export type HtmlValue = Html | string | number | bigint | undefined | false | readonly HtmlValue[];

/** Nothing. */
export const NOTHING = new Html('');

/**
 * A template: html`<td>${name}</td>`. Values are for text and for attributes in double quotes, nowhere else: not for
 * tags, names of attributes, scripts or styles.
 */
export function html(parts: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  return new Html(parts.reduce((text, part, index) => text + htmlOf(values[index - 1]) + part));
}

function htmlOf(value: HtmlValue): string {
  if (value === undefined || value === false) return '';
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(htmlOf).join('');
  return escapeHtml(String(value));
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Control characters and those that reverse the direction of text are shown as U+FFFD: they could disguise a name. */
function escapeHtml(text: string): string {
  return text
    .replace(/[\p{Cc}\u202A-\u202E\u2066-\u2069]/gu, (character) => (character === '\n' ? '\n' : '\uFFFD'))
    .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');
}
