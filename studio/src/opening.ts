// Opening another video: one that is sent to the server, which makes a project of it, or a project of before.

import { element, make, onClick } from "./dom";

interface Projects {
  projects: { id: string; name: string; folder: string; opened: string; open: boolean }[];
  largest_upload: number;
}

const MIB = 2 ** 20;

/** The call that sends a video. */
export function addOpening(): (video: File) => void {
  const dialog = element<HTMLDialogElement>("open-dialog");
  const file = element<HTMLInputElement>("video-file");
  const status = element("open-status");
  const bar = element<HTMLProgressElement>("upload-progress");
  const list = element("projects");
  let limit = Infinity;
  let sending: XMLHttpRequest | null = null;

  onClick("open", () => void show());
  onClick("choose-video", () => file.click());
  onClick("open-close", () => dialog.close());
  dialog.addEventListener("close", () => sending?.abort());
  file.addEventListener("change", () => {
    const [chosen] = file.files ?? [];
    if (chosen) void send(chosen);
    file.value = "";
  });

  async function show(): Promise<void> {
    status.textContent = "";
    bar.hidden = true;
    if (!dialog.open) dialog.showModal();
    const answer = await fetch("/api/projects").catch(() => null);
    if (!answer?.ok) {
      status.textContent = "The studio does not answer.";
      return;
    }
    const said = (await answer.json()) as Projects;
    limit = said.largest_upload;
    element("upload-limit").textContent =
      `Or drop it anywhere on this page. Up to ${Math.floor(limit / MIB)} MiB; it is copied into a project of its own on this computer.`;
    list.replaceChildren(
      ...said.projects.map(({ id, name, folder, opened, open }) => {
        const button = make("button", { disabled: open }, make("span", {}, name), make("small", {}, open ? "open now" : opened));
        button.title = folder;
        button.addEventListener("click", () => void reopen(id));
        return make("li", {}, button);
      }),
    );
  }

  async function reopen(id: string): Promise<void> {
    status.textContent = "Opening …";
    const answer = await fetch(`/api/projects/${encodeURIComponent(id)}`, { method: "POST", body: "" }).catch(() => null);
    if (answer?.ok) location.reload();
    else status.textContent = ((await answer?.json().catch(() => null)) as { problem?: string } | null)?.problem ?? "It could not be opened.";
  }

  async function send(video: File): Promise<void> {
    await show();
    if (video.size > limit) {
      status.textContent = `${video.name} has ${Math.ceil(video.size / MIB)} MiB. Larger ones are opened with: onemask studio FILE`;
      return;
    }
    const request = new XMLHttpRequest(); // fetch does not say how much has been sent
    sending = request;
    request.open("POST", `/api/videos?name=${encodeURIComponent(video.name.slice(-200))}`);
    request.responseType = "json";
    bar.hidden = false;
    bar.value = 0;
    status.textContent = `Copying ${video.name} …`;
    request.upload.onprogress = (event) => {
      bar.value = event.loaded / event.total;
      if (event.loaded === event.total) status.textContent = `Reading ${video.name} …`;
    };
    request.onload = () => {
      if (request.status === 200) location.reload();
      else ended((request.response as { problem?: string } | null)?.problem ?? "The video was refused: it may be too large.");
    };
    request.onerror = () => ended("The video could not be sent.");
    request.onabort = () => ended("");
    request.send(video);
  }

  function ended(problem: string): void {
    sending = null;
    bar.hidden = true;
    status.textContent = problem;
  }

  return (video) => void send(video);
}
