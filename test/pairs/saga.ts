/** How applications keep several services consistent: what was done is undone, newest first, when the whole fails. */
import { CallFailed, statusOf, type Request } from './work.js';

type Action = () => Promise<void>;

/** Attempts of a compensation, which has to come through. */
const UNDO_TIMES = 4;
/** An answer that leaves open whether it took effect. */
const TIMEOUT = 504;

export class Saga {
  private readonly done: Action[] = [];
  private closed = false;

  constructor(private readonly request: Request) {}

  /** Does something that `undo` undoes. A timeout counts as done: nobody knows. */
  async step(action: Action, undo: Action): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (statusOf(error) === TIMEOUT) await this.keep(undo);
      throw error;
    }
    await this.keep(undo);
  }

  /** All at once. Fails when all are over and one has failed. */
  async all(branches: readonly Action[]): Promise<void> {
    const results = await Promise.allSettled(branches.map(branch => branch()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** All at once. Fails at once, while the others go on; what they do from then on is undone when it is done. */
  async race(branches: readonly Action[]): Promise<void> {
    await Promise.all(branches.map(branch => this.request.work.track(branch())));
  }

  /** Undoes what was done, and from now on whatever is done. */
  async undo(): Promise<void> {
    this.closed = true;
    for (const action of this.done.splice(0).reverse()) await this.insist(action);
  }

  private async keep(undo: Action): Promise<void> {
    if (this.closed) await this.insist(undo);
    else this.done.push(undo);
  }

  private async insist(undo: Action): Promise<void> {
    await this.request.retry(UNDO_TIMES, undo).catch((error: unknown) => {
      // It shows in what is left.
      if (!(error instanceof CallFailed)) throw error;
    });
  }
}

/** Errors that an application can do without. */
export async function atBest(action: Promise<void>): Promise<void> {
  await action.catch(statusOf);
}
