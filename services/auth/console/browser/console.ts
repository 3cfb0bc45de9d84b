/** What the pages do beyond plain links and forms. Every page works without it. */

/** A form is sent once, however often its button is pressed. */
for (const form of document.querySelectorAll<HTMLFormElement>('form[method="post"]')) {
  form.addEventListener('submit', (event) => {
    if (form.dataset['sent'] !== undefined) event.preventDefault();
    form.dataset['sent'] = '';
  });
}

/** The browser may show a page again as it was when it was left. */
addEventListener('pageshow', (event) => {
  if (event.persisted) location.reload();
});

/** A change of the live part. */
interface Change {
  readonly body: string;
  readonly summary: string;
}

/** The live part of a page is replaced as it changes. */
function follow(region: HTMLElement, path: string): void {
  const summary = document.querySelector('[data-live-summary]');
  const hint = document.querySelector('[data-live-hint]');
  if (hint !== null) hint.textContent = 'This page changes as it happens.';
  const source = new EventSource(path);
  source.addEventListener('change', (event: MessageEvent<string>) => {
    const change = JSON.parse(event.data) as Change;
    // The server escapes what is in the part, as in the page; the policy of the page lets no script of it run.
    const parsed = new DOMParser().parseFromString(change.body, 'text/html');
    region.replaceChildren(...parsed.body.childNodes);
    // Only a text that differs: a screen reader says it.
    if (summary !== null && summary.textContent !== change.summary) summary.textContent = change.summary;
  });
  source.addEventListener('done', () => {
    source.close();
    hint?.remove();
  });
  // The login has ended: the page shows nothing of it any more.
  source.addEventListener('ended', () => {
    source.close();
    location.reload();
  });
}

for (const region of document.querySelectorAll<HTMLElement>('[data-live]')) {
  const path = region.dataset['live'];
  if (path !== undefined && path !== '') follow(region, path);
}
