/** The element with an id, which index.html has. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function onClick(id: string, call: () => void): HTMLButtonElement {
  const button = element<HTMLButtonElement>(id);
  button.addEventListener("click", call);
  return button;
}

/** Call when there are more or fewer device pixels to a CSS pixel: the window has come to another screen, or is zoomed. */
export function onPixelRatio(call: () => void): void {
  const changed = (): void => {
    call();
    onPixelRatio(call);
  };
  matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", changed, { once: true });
}

/** A new element with properties and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
