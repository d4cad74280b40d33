// Stands in where transactions are not built yet: the collector runs, and says that it knows of none.

import { NotFound } from '../errors.js';
import type { TransactionsPort } from './transactions-port.js';

export class NoTransactions implements TransactionsPort {
  readonly unlinked = 0;
  readonly flow = {
    getFlow: (): object => ({ flows: [] }),
    snapshot: (): unknown => null,
    restore: (): void => undefined,
  };

  ingest(): void {
    // Nothing is kept.
  }

  inFlight(): void {
    // Nothing is kept.
  }

  get(id: string): object {
    throw new NotFound(`no transaction with id ${JSON.stringify(id)} is known`);
  }

  explain(id: string): object {
    return this.get(id);
  }

  list(): object {
    return { transactions: [], nextPageToken: '' };
  }

  watch(): () => void {
    return () => undefined;
  }

  tick(): void {
    // Nothing expires.
  }
}
