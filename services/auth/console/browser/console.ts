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

/** A live part without any event for this long may show an old state, in milliseconds. The server sends one every 2 seconds. */
const STALE_MS = 6_000;

/** A stream that was refused, for example with 429, is opened again after this long, in milliseconds. */
const RETRY_MS = 10_000;

/** The live part of a page is replaced as it changes, while the page is visible. */
function follow(region: HTMLElement, path: string): void {
  const summary = document.querySelector('[data-live-summary]');
  const hint = document.querySelector('[data-live-hint]');
  let source: EventSource | undefined;
  let retry: number | undefined;
  let isEnded = false;
  let receivedMs = Date.now();

  // Only a text that differs: a screen reader says it.
  const say = (element: Element | null, text: string): void => {
    if (element !== null && element.textContent !== text) element.textContent = text;
  };
  const warn = (): void => {
    const time = new Date(receivedMs).toISOString().slice(11, 19);
    say(hint, `Not up to date since ${time} UTC. Trying again.`);
    hint?.classList.add('alert');
  };
  const receive = (): void => {
    receivedMs = Date.now();
    say(hint, 'This page changes as it happens.');
    hint?.classList.remove('alert');
  };
  const close = (): void => {
    clearTimeout(retry);
    source?.close();
    source = undefined;
  };
  const end = (): void => {
    isEnded = true;
    clearInterval(check);
    close();
  };

  const open = (): void => {
    close();
    const opened = new EventSource(path);
    source = opened;
    opened.addEventListener('heartbeat', receive);
    opened.addEventListener('change', (event: MessageEvent<string>) => {
      const change = JSON.parse(event.data) as Change;
      // The server escapes what is in the part, as in the page; the policy of the page lets no script of it run.
      const parsed = new DOMParser().parseFromString(change.body, 'text/html');
      region.replaceChildren(...parsed.body.childNodes);
      say(summary, change.summary);
      receive();
    });
    opened.addEventListener('done', () => {
      end();
      hint?.remove();
    });
    opened.addEventListener('replaced', () => {
      end();
      say(hint, 'Another tab of the console is live, so this one is not. Reload this page to make it live.');
      hint?.classList.add('alert');
    });
    // The login has ended: the page shows nothing of it any more.
    opened.addEventListener('ended', () => {
      end();
      location.reload();
    });
    opened.addEventListener('error', () => {
      if (isEnded) return;
      warn();
      // After a lost connection, the browser opens the stream again; after another status than 200, it does not.
      if (opened.readyState !== EventSource.CLOSED) return;
      clearTimeout(retry);
      retry = setTimeout(openIfVisible, RETRY_MS);
    });
  };

  // A hidden tab needs no stream, and browsers open only six connections for a host.
  const openIfVisible = (): void => {
    if (isEnded) return;
    if (document.visibilityState === 'hidden') close();
    else open();
  };
  const check = setInterval(() => {
    if (Date.now() - receivedMs > STALE_MS) warn();
  }, 1_000);
  document.addEventListener('visibilitychange', openIfVisible);
  openIfVisible();
}

for (const region of document.querySelectorAll<HTMLElement>('[data-live]')) {
  const path = region.dataset['live'];
  if (path !== undefined && path !== '') follow(region, path);
}
