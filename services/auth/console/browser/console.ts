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
