// How a command ends, for people and for scripts.

export const EXIT = {
  /** All is well. */
  OK: 0,
  /** The answer is a problem: what was asked for is not there, or not certain. */
  PROBLEM: 1,
  /** The command was not used as it must be. */
  USAGE: 2,
  /** The collector could not be asked, or did not answer. */
  COULD_NOT_ASK: 3,
} as const;

/** A failure with a sentence for people. The message has no `meshpulse:` in front. */
export class CliError extends Error {
  constructor(
    readonly exitCode: number,
    message: string,
  ) {
    super(message);
    this.name = 'CliError';
  }
}

export const problem = (message: string): CliError => new CliError(EXIT.PROBLEM, message);
export const wrongUse = (message: string): CliError => new CliError(EXIT.USAGE, message);
export const couldNotAsk = (message: string): CliError => new CliError(EXIT.COULD_NOT_ASK, message);
