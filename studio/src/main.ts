// The page: everything is made once the server has said what the project is.

import { Connection } from "./connection";
import { element, make, onClick } from "./dom";
import { addExport } from "./exporting";
import { icon } from "./icons";
import { addKeys } from "./keys";
import { addOpening } from "./opening";
import { addMask, addObjects, addPropagation, addTools, addView, TOOLS } from "./panels";
import { Pictures } from "./pictures";
import { addPlayer } from "./player";
import type { Event } from "./protocol";
import { Stage } from "./stage";
import { Store } from "./store";
import { Timeline } from "./timeline";

const NOTICE_MS = 7000;
const AWAY = "The studio does not answer.";

const store = new Store();
let stage: Stage | null = null;
let farewell = ""; // why the studio is not asked any more

const connection = new Connection(
  (event) => {
    if (event.type === "notice") notice(capitalised(event.text));
    if (event.type === "proposal") stage?.proposed(event);
    else if (event.type === "opened" || isOfAnotherVideo(event)) location.reload();
    else store.hear(event);
    if (event.type === "state" && !stage) start();
  },
  (online, problem) => {
    store.setOnline(online);
    if (problem) notice(problem);
    showStatus();
  },
  (why) => {
    farewell = why;
    showStatus();
  },
);
store.send = (command) => {
  const sent = connection.send(command);
  if (!sent && command.type !== "look") notice(`${AWAY} That was not done.`);
  return sent;
};

/** Whether the studio was started for another video while this page had no connection. */
function isOfAnotherVideo(event: Event): boolean {
  return event.type === "state" && store.state !== null && event.video.id !== store.state.video.id;
}

function start(): void {
  const { video } = store.state!;
  const place = `frame of ${video.id}`;
  store.frame = Math.min(Number(sessionStorage.getItem(place) ?? 0) || 0, video.frames - 1);
  document.title = `${video.name} – onemask studio`;
  element("name").textContent = video.name;
  element("facts").textContent = `${video.width} × ${video.height}, ${video.frames} frames`;
  const pictures = new Pictures(video.frames, video.id, video.width * video.height * 4, (index) => index === store.frame && stage?.draw(), notice);
  void pictures.decodeAhead([video.width, video.height]).then((decodes) => (document.body.dataset.frames = decodes ? "decoded" : "pictures"));
  addTools(store);
  stage = new Stage(element<HTMLCanvasElement>("stage"), store, pictures, notice);
  new Timeline(element<HTMLCanvasElement>("timeline"), store, pictures);
  addObjects(store, stage);
  addMask(store, stage);
  addPropagation(store);
  addView(store);
  addPlayer(store, pictures, notice);
  addExport(store);
  addBar(stage);
  addKeys(store, stage, notice, () => element<HTMLDialogElement>("help-dialog").showModal());
  store.on(["state"], noteEnd);
  store.on(["frame", "tool"], () => (finished = false));
  store.on(["frame"], () => sessionStorage.setItem(place, String(store.frame)));
  store.on(["state", "job", "tool", "frames", "mask", "frame"], () => {
    showStatus();
    showHint();
  });
  store.on(["hint"], showHint);
  store.look([store.frame]);
  showStatus();
  showHint();
}

function addBar(on: Stage): void {
  for (const [id, name] of [["undo", "undo"], ["redo", "redo"], ["theme", "theme"], ["zoom-in", "in"], ["zoom-out", "out"]]) element(id).append(icon(name));
  const undo = onClick("undo", () => {
    on.forgetMarks();
    store.send({ type: "undo" });
  });
  const redo = onClick("redo", () => {
    on.forgetMarks();
    store.send({ type: "redo" });
  });
  const show = (): void => {
    for (const [button, what, word] of [[undo, store.state!.undo, "Undo"], [redo, store.state!.redo, "Redo"]] as const) {
      button.disabled = what === null;
      button.title = what ? `${word}: ${what}` : word;
    }
  };
  store.on(["state"], show);
  show();
  onClick("help", () => element<HTMLDialogElement>("help-dialog").showModal());
  onClick("theme", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  onClick("zoom-in", () => on.zoomBy(1.25));
  onClick("zoom-out", () => on.zoomBy(0.8));
  const fit = onClick("zoom-fit", () => on.fit());
  const showZoom = (): void => void (fit.textContent = `${on.percent} %`);
  store.on(["zoom"], showZoom);
  showZoom();
  const file = element<HTMLInputElement>("file");
  onClick("import", () => file.click());
  file.addEventListener("change", () => {
    const [chosen] = file.files ?? [];
    if (chosen) void importMask(chosen, on);
    file.value = "";
  });
  const send = addOpening();
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const [dropped] = event.dataTransfer?.files ?? [];
    if (dropped?.type === "image/png") void importMask(dropped, on);
    else if (dropped) send(dropped);
  });
}

async function importMask(file: File, on: Stage): Promise<void> {
  on.forgetMarks();
  if (!on.toSeen()) return;
  const answer = await fetch(`/api/masks/${store.frame}`, { method: "POST", body: file }).catch(() => null);
  const said = (await answer?.json().catch(() => null)) as { problem?: string; read?: string } | null;
  if (answer?.ok && said?.read) element("status").textContent = `Read as ${said.read}`;
  else notice(answer ? capitalised(said?.problem ?? "That file was refused: it may be too large.") : AWAY);
}

function showStatus(): void {
  const { state } = store;
  const text = !store.online
    ? farewell || `${AWAY} Everything is kept; trying again …`
    : !state
      ? ""
      : state.job
        ? `${state.job.at}${state.job.done ? ` ${Math.round((100 * state.job.done) / Math.max(1, state.job.total))} %` : " …"}`
        : "Everything is saved";
  const status = element("status");
  if (status.textContent !== text) status.textContent = text;
  document.body.classList.toggle("offline", !store.online);
}

let working = false;
let finished = false; // the last propagation, and nobody has gone elsewhere since

function noteEnd(): void {
  const { job, problem } = store.state!;
  if (working && !job) finished = !problem && store.frames.every(({ status }) => status === "fresh");
  else if (job) finished = false;
  working = job !== null;
}

/** What to do next, in a line, for who is here for the first time. */
function showHint(): void {
  const state = store.state!;
  const hint = TOOLS.find(({ tool }) => tool === store.tool)?.hint ?? "";
  const missing = store.activeObject && !store.labels()?.has(store.active);
  const nothingMade = store.frames.every(({ status }) => status === "none");
  const doubt = store.frames[store.frame]?.doubt;
  const text = stage?.isWaiting ? "Looking for the object …" : stage?.isSoftening ? "Softening the edges …" : state.job ? "" : finished ? "Done. Drag along the timeline to look through it, draw to correct it, export it at the top right." : doubt ? `Have a look: ${store.named(doubt)}` : missing && nothingMade ? hint : state.keys.length && nothingMade ? "Now propagate: press G, or the button on the right." : "";
  const shown = element("hint");
  if (shown.textContent !== text) shown.textContent = text;
}

function notice(text: string): void {
  const notices = element("notices");
  if ([...notices.children].some((shown) => shown.textContent === text)) return; // it is being said
  const shown = make("div", { className: "notice" }, text);
  notices.append(shown);
  setTimeout(() => shown.remove(), NOTICE_MS);
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function setTheme(theme: string): void {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  store.tell("view");
}

document.documentElement.dataset.theme = localStorage.getItem("theme") === "light" ? "light" : "dark";
