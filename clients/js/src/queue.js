/** @template T */
export class Queue {
  /** @type {T[]} */
  items = [];
  ended = false;
  /** @type {unknown} */
  #error;
  #wake = () => {};

  /** @param {T} item */
  push(item) {
    this.items.push(item);
    this.#wake();
  }

  /** @param {unknown} [error] */
  end(error) {
    this.ended = true;
    this.#error = error;
    this.#wake();
  }

  /** @param {() => void} [empty] before it waits */
  async *take(empty) {
    for (;;) {
      const taken = this.items;
      this.items = [];
      yield* taken;
      if (this.items.length) continue;
      if (this.ended) break;
      empty?.();
      if (!this.ended && !this.items.length) {
        await new Promise((resolve) => {
          this.#wake = () => resolve(null);
        });
      }
    }
    if (this.#error) throw this.#error;
  }
}
