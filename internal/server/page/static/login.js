// The dialog for the token.

export class Login {
  asking = false;

  constructor(dialog, use) {
    this.dialog = dialog;
    this.field = dialog.querySelector('input');
    this.error = dialog.querySelector('[role=alert]');
    // There is nothing behind it. A browser may close it all the same.
    dialog.addEventListener('cancel', (event) => event.preventDefault());
    dialog.addEventListener('close', () => this.asking && this.#show());
    dialog.querySelector('form').addEventListener('submit', (event) => {
      event.preventDefault();
      const token = this.field.value.trim();
      // A header can carry no other characters.
      if (!/^[\x21-\x7e]+$/.test(token)) {
        this.error.textContent = 'A token has letters, digits and signs of ASCII, without blanks.';
        return;
      }
      this.field.value = '';
      this.asking = false;
      dialog.close();
      use(token);
    });
  }

  ask(error) {
    this.error.textContent = error;
    this.asking = true;
    if (!this.dialog.open) this.#show();
  }

  #show() {
    this.dialog.showModal();
    this.field.focus();
  }
}
