import Mocha from 'mocha';

/**
 * Mocha's own `spec` output, closed by one line for machines: `N passed, N failed, N skipped`.
 *
 * Failed hooks count as failures, as in mocha's statistics; `skipped` are pending tests.
 */
export default class CountingReporter extends Mocha.reporters.Spec {
  override epilogue(): void {
    super.epilogue();
    const { passes, failures, pending } = this.stats;
    process.stdout.write(`${passes} passed, ${failures} failed, ${pending} skipped\n`);
  }
}
