// Live numbers while the story goes on: one short line every two seconds.
import type { CollectorView, Service } from './collector-view.js';
import { screen } from './screen.js';

const EVERY_MS = 2000;
const COLUMN = 11;

export class Ticker {
  private timer: NodeJS.Timeout | undefined;
  private last: { at: number; requests: number; failed: number } | undefined;
  private lines = 0;

  /** `services` by full name; the first is where requests come in. */
  constructor(
    private readonly view: CollectorView,
    private readonly services: string[],
  ) {}

  start(): void {
    this.timer = setInterval(() => void this.tick(), EVERY_MS);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private async tick(): Promise<void> {
    try {
      const services = await this.view.services();
      const entry = services.get(this.services[0] ?? '');
      if (!entry) return;
      this.print(this.rates(entry), services);
    } catch (error) {
      // The story goes on; whoever needs the collector says so itself.
      screen.step(`no numbers: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  private rates(entry: Service): string[] {
    const now = { at: Date.now(), requests: 0, failed: 0 };
    for (const { response_code: status, count } of entry.operations) {
      now.requests += Number(count);
      if (status >= 500) now.failed += Number(count);
    }
    const before = this.last;
    this.last = now;
    if (!before) return ['-', '-'];
    const seconds = (now.at - before.at) / 1000;
    return [
      ((now.requests - before.requests) / seconds).toFixed(0),
      ((now.failed - before.failed) / seconds).toFixed(0),
    ];
  }

  private print(rates: string[], services: Map<string, Service>): void {
    // Requests in work, and how many wait where that is known.
    const cells = this.services.map(service => {
      const { in_flight: inFlight, queue } = services.get(service) ?? {};
      if (inFlight === undefined) return '-';
      return queue === undefined || queue === 0 ? String(inFlight) : `${inFlight}+${queue}`;
    });
    const short = this.services.map(service => service.split('.')[0] ?? service);
    const row = (texts: string[]) => texts.map(text => text.padStart(COLUMN)).join('');
    if (this.lines++ % 10 === 0) screen.note(`${row(['req/s', 'failed/s', ...short])}   in work (+ waiting)`);
    screen.step(row([...rates, ...cells]));
  }
}
