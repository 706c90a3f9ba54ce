// The WebSocket: commands go out, events come in; when it breaks it is opened again.

import type { Command, Event } from "./protocol";

export class Connection {
  private socket: WebSocket | null = null;
  private delay = 300;

  constructor(
    private readonly hear: (event: Event) => void,
    private readonly online: (online: boolean, problem: string) => void,
    private readonly ended: (why: string) => void, // it is not opened again
  ) {
    this.open();
  }

  /** Whether there was a connection to send it over. */
  send(command: Command): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(command));
    return true;
  }

  private open(): void {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/socket`);
    this.socket = socket;
    socket.onopen = () => {
      this.delay = 300;
      this.online(true, "");
    };
    socket.onmessage = (message) => this.hear(JSON.parse(message.data as string) as Event);
    socket.onclose = (close) => {
      this.online(false, close.code === 1008 ? `the server did not understand: ${close.reason}` : "");
      setTimeout(() => void this.again(), this.delay);
      this.delay = Math.min(5000, this.delay * 1.7);
    };
  }

  /** Open anew, unless another server answers now, which this page's token does not fit. */
  private async again(): Promise<void> {
    try {
      const answer = await fetch("/api/state");
      if (answer.status === 401) {
        this.ended("The studio was started anew. Open the address that it printed.");
        return;
      }
    } catch {
      // not there yet
    }
    this.open();
  }
}
