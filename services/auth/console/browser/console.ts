/** What the pages do beyond plain links and forms. Every page works without it. */

/** A second press of a button within this long sends nothing, in milliseconds. Later, the first request was stopped. */
const SENT_MS = 10_000;

/** A form is sent once, however often its button is pressed. */
for (const form of document.querySelectorAll<HTMLFormElement>('form[method="post"]')) {
  let sentMs = Number.NEGATIVE_INFINITY;
  form.addEventListener('submit', (event) => {
    if (Date.now() - sentMs < SENT_MS) event.preventDefault();
    else sentMs = Date.now();
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

/** Statuses of a stream that will not change. */
const FINAL_STATUSES: ReadonlySet<number> = new Set([400, 403, 404, 410]);

/** The live part of a page is replaced as it changes, while the page is visible. */
function follow(region: HTMLElement, path: string): void {
  const summary = document.querySelector('[data-live-summary]');
  const hint = document.querySelector('[data-live-hint]');
  const control = document.querySelector<HTMLElement>('[data-live-control]');
  const pause = document.querySelector('[data-live-pause]');
  let isPaused = false;
  let source: EventSource | undefined;
  let retry: number | undefined;
  let isEnded = false;
  let receivedMs = Date.now();
  let openedMs = receivedMs;

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
    if (control !== null) control.hidden = true;
  };
  const endWith = (text: string): void => {
    end();
    say(hint, text);
    hint?.classList.add('alert');
  };
  /** Browsers do not say with which status a stream was refused. */
  const retryUnlessFinal = async (): Promise<void> => {
    clearTimeout(retry);
    retry = setTimeout(openIfVisible, RETRY_MS);
    const { status = 0 } = await fetch(path, { method: 'HEAD' }).catch((): Partial<Response> => ({}));
    if (isEnded || source !== undefined || !FINAL_STATUSES.has(status)) return;
    endWith('This page no longer changes: what it shows is gone, or you may not see it. Reload this page.');
  };

  const open = (): void => {
    close();
    openedMs = Date.now();
    const opened = new EventSource(path);
    source = opened;
    opened.addEventListener('heartbeat', receive);
    opened.addEventListener('change', (event: MessageEvent<string>) => {
      const change = JSON.parse(event.data) as Change;
      // The server escapes what is in the part, as in the page; the policy of the page lets no script of it run.
      const parsed = new DOMParser().parseFromString(change.body, 'text/html');
      const focused = region.contains(document.activeElement) ? document.activeElement : null;
      region.replaceChildren(...parsed.body.childNodes);
      if (focused !== null) focusAgain(region, focused);
      say(summary, change.summary);
      receive();
    });
    opened.addEventListener('done', () => {
      end();
      hint?.remove();
    });
    opened.addEventListener('replaced', () => {
      endWith('Another tab of the console is live, so this one is not. Reload this page to make it live.');
    });
    // The login has ended: the page shows nothing of it any more.
    opened.addEventListener('ended', () => {
      end();
      location.reload();
    });
    opened.addEventListener('error', () => {
      // After a lost connection, the browser opens the stream again; after another status than 200, it does not.
      if (source !== opened || opened.readyState !== EventSource.CLOSED) return;
      close();
      warn();
      void retryUnlessFinal();
    });
  };

  // A hidden tab needs no stream, and browsers open only six connections for a host.
  const openIfVisible = (): void => {
    if (isEnded) return;
    if (document.visibilityState === 'hidden' || isPaused) close();
    else open();
  };
  const check = setInterval(() => {
    if (!isPaused && Date.now() - Math.max(receivedMs, openedMs) > STALE_MS) warn();
  }, 1_000);
  pause?.addEventListener('click', () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? 'Resume' : 'Pause';
    hint?.classList.remove('alert');
    say(hint, isPaused ? 'Paused. This page does not change.' : 'This page changes again.');
    openIfVisible();
  });
  if (control !== null) control.hidden = false;
  document.addEventListener('visibilitychange', openIfVisible);
  openIfVisible();
}

/** The link to the same place has the focus that a link had before its replacement. */
function focusAgain(region: HTMLElement, focused: Element): void {
  const href = focused.getAttribute('href');
  const links = [...region.querySelectorAll('a')];
  links.find((link) => link.getAttribute('href') === href)?.focus({ preventScroll: true });
}

for (const region of document.querySelectorAll<HTMLElement>('[data-live]')) {
  const path = region.dataset['live'];
  if (path !== undefined && path !== '') follow(region, path);
}
