// A bound on what is done in one second: what comes after waits for nobody and is let go.

const SECOND_MS = 1000;

export class Pace {
  private untilMs = 0;
  private left = 0;

  /** @param perSecond at most so many within a second */
  constructor(private readonly perSecond: number) {}

  /** False: no more within this second. @param nowMs monotonic */
  take(nowMs: number): boolean {
    if (nowMs >= this.untilMs) {
      this.untilMs = nowMs + SECOND_MS;
      this.left = this.perSecond;
    }
    if (this.left === 0) return false;
    this.left -= 1;
    return true;
  }
}
