// The export dialog: a format, a download, and the command that does the same.

import { element, make, onClick } from "./dom";
import { chooseEdges } from "./edges";
import type { State } from "./protocol";
import type { Store } from "./store";

const GROUPS = { usual: "Masks and video", alpha: "Mattes and cut-outs, with soft edges", other: "For other programs" };

export function addExport(store: Store): void {
  const dialog = element<HTMLDialogElement>("export-dialog");
  const formats = element("formats");
  const status = element("export-status");
  const download = onClick("download", () => void save());
  let chosen = store.state!.exports[0]?.name ?? "";
  const choice = ({ name, summary }: State["exports"][number]): HTMLElement => {
    const radio = make("input", { type: "radio", name: "format", value: name, checked: name === chosen });
    radio.addEventListener("change", () => {
      chosen = name;
      showCommand();
    });
    return make("label", {}, radio, make("span", {}, name), make("small", {}, summary));
  };
  for (const group of ["usual", "alpha", "other"] as const) {
    formats.append(make("h3", {}, GROUPS[group]), ...store.state!.exports.filter((each) => each.group === group).map(choice));
  }
  chooseEdges(store, element<HTMLSelectElement>("edges"));
  store.on(["view"], showCommand);
  onClick("export-close", () => dialog.close());
  onClick("export", () => {
    const left = store.frames.filter((frame, i) => frame.status !== "fresh" && !store.state!.keys.includes(i)).length;
    element("export-left").textContent = left
      ? `${left} of ${store.frames.length} frames are not up to date; they are exported as they are.`
      : `All ${store.frames.length} frames are up to date.`;
    showCommand();
    status.textContent = "";
    dialog.showModal();
  });

  /** How the edges of the chosen format are made. */
  function matte(): string {
    return store.state!.exports.find(({ name }) => name === chosen)?.has_alpha ? store.edges : "none";
  }

  function showCommand(): void {
    const { command, exports } = store.state!;
    element("edges-row").hidden = !exports.find(({ name }) => name === chosen)?.has_alpha;
    const soft = matte() === "none" ? "" : ` --matte ${matte()}`;
    element("command-label").hidden = command === null;
    element<HTMLTextAreaElement>("command").value = command === null ? "" : `${command} --save ${chosen === "png" ? "masks" : chosen}${soft}`;
  }

  async function save(): Promise<void> {
    download.disabled = true;
    status.textContent = "Writing …";
    try {
      const answer = await fetch(`/api/exports/${encodeURIComponent(chosen)}?matte=${encodeURIComponent(matte())}`, { method: "POST", body: "" });
      const said = (await answer.json().catch(() => null)) as { problem?: string; file?: string; name?: string } | null;
      if (answer.ok && said?.file) {
        const link = make("a", { href: said.file, download: said.name ?? "" });
        document.body.append(link);
        link.click();
        link.remove();
        status.textContent = `${said.name} is being downloaded.`;
      } else status.textContent = said?.problem ?? "The export failed.";
    } catch {
      status.textContent = "The studio does not answer.";
    }
    download.disabled = false;
  }
}
