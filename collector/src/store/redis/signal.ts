// Waits that end early.

/** Something to wait for: until the next `notify`, or for so long. */
export class Signal {
  private wake: (() => void) | undefined;
  private notified = false;

  /** Ends a wait that is under way, else the next one at once. */
  notify(): void {
    this.notified = true;
    this.wake?.();
  }

  async wait(ms: number): Promise<void> {
    if (!this.notified) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, ms);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = undefined;
    }
    this.notified = false;
  }
}

/** After what the event loop has at hand now. */
export const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

export const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));
