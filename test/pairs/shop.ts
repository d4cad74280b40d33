/** The sample applications: a shop with sagas of several styles, a batch job, and consumers of messages. */
import { atBest, Saga } from './saga.js';
import { statusOf, type Operation, type Request, type Services } from './work.js';

const CHARGE_TIMEOUT_MS = 150;

/** An operation that does something, and the one that undoes it. */
function pair(what: string, doing: Operation, undoing: Partial<Operation> = {}): [Operation, Operation] {
  return [
    { ...doing, run: request => request.effect(what) },
    { ms: [2, 8], flaky: 0.05, ...undoing, run: request => request.effect(what, 'undone') },
  ];
}

/** A gateway's part: hands the request on to the shop, and its answer back. */
const through = (operation: string, times = 1): Operation => ({
  ms: [1, 2],
  run: request => request.retry(times, () => request.call('shop', operation)),
});

const charge = (request: Request, provider = 'payment', times = 3): Promise<void> =>
  request.retry(times, () => request.call(provider, 'POST /charge', { timeoutMs: CHARGE_TIMEOUT_MS }));

function refund(request: Request, provider = 'payment'): () => Promise<void> {
  let issued = false;
  return () => {
    if (!issued) request.work.refundsIssued += 1;
    issued = true;
    return request.call(provider, 'POST /refund', { undoes: true });
  };
}

const undo = (request: Request, service: string, operation: string) => (): Promise<void> =>
  request.call(service, operation, { undoes: true });

const pay = (request: Request, saga: Saga): Promise<void> => saga.step(() => charge(request), refund(request));

const reserve = (request: Request, saga: Saga): Promise<void> =>
  saga.step(() => request.call('stock', 'POST /reserve'), undo(request, 'stock', 'POST /release'));

const label = (request: Request, saga: Saga): Promise<void> =>
  saga.step(() => request.call('shipping', 'POST /label'), undo(request, 'shipping', 'DELETE /label'));

const pickup = (request: Request, saga: Saga): Promise<void> =>
  saga.step(() => request.call('shipping', 'POST /pickup'), undo(request, 'shipping', 'DELETE /pickup'));

const points = (request: Request, saga: Saga): Promise<void> =>
  saga.step(() => request.call('loyalty', 'POST /points'), undo(request, 'loyalty', 'POST /revoke'));

/** The same operation writes and takes back. */
const note = (request: Request, saga: Saga): Promise<void> =>
  saga.step(() => request.call('crm', 'PUT /note'), undo(request, 'crm', 'PUT /note'));

/** Runs a saga and undoes it when it fails. */
async function safely(request: Request, run: (saga: Saga) => Promise<void>): Promise<void> {
  const saga = new Saga(request);
  try {
    await run(saga);
  } catch (error) {
    statusOf(error);
    await saga.undo();
    throw error;
  }
}

/** Money and goods side by side; the catch block undoes what both did. */
async function checkout(request: Request): Promise<void> {
  await request.retry(2, () => request.call('catalog', 'GET /price'));
  try {
    await safely(request, saga =>
      saga.all([
        () => pay(request, saga),
        async () => {
          await reserve(request, saga);
          await label(request, saga);
          await pickup(request, saga);
          await points(request, saga);
          await note(request, saga);
        },
      ]),
    );
  } finally {
    // However it ends: only the policy can know.
    await atBest(request.call('audit', 'POST /record'));
  }
  await atBest(request.call('mail', 'POST /send'));
}

/** Another provider takes over when the first fails. */
async function subscribe(request: Request): Promise<void> {
  await safely(request, async saga => {
    await saga.all([
      async () => {
        try {
          await saga.step(() => charge(request, 'payment', 2), refund(request));
        } catch (error) {
          statusOf(error);
          await saga.step(() => charge(request, 'paysafe', 2), refund(request, 'paysafe'));
        }
      },
      () => saga.step(() => request.call('crm', 'POST /activate'), undo(request, 'crm', 'POST /deactivate')),
    ]);
    await points(request, saga);
  });
  await atBest(request.call('mail', 'POST /send'));
}

/** Fails at the first error, while the other branches still run and are undone one by one. */
async function booking(request: Request): Promise<void> {
  await safely(request, async saga => {
    await reserve(request, saga);
    await saga.race([
      () => saga.step(() => request.call('shipping', 'POST /ticket'), undo(request, 'shipping', 'DELETE /ticket')),
      () => pay(request, saga),
      async () => {
        await points(request, saga);
        await note(request, saga);
        await request.call('search', 'GET /seats');
      },
    ]);
  });
}

/** Needs little of what it asks for. */
async function page(request: Request): Promise<void> {
  await Promise.all([
    request.retry(2, () => request.call('catalog', 'GET /list')),
    atBest(request.call('reviews', 'GET /top').then(() => request.call('reviews', 'GET /photos'))),
    atBest(request.call('search', 'GET /similar').then(() => request.call('catalog', 'GET /prices'))),
  ]);
}

/** Healed by the gateway, which asks again. */
async function quote(request: Request): Promise<void> {
  await Promise.all([
    request.retry(2, () => request.call('tax', 'GET /rate')),
    request.call('catalog', 'GET /price').then(() => request.call('search', 'POST /log')),
  ]);
}

/** One position of a batch, or of a message. */
const position = (request: Request): Promise<void> =>
  safely(request, saga =>
    saga.all([
      () => pay(request, saga),
      async () => {
        await reserve(request, saga);
        await label(request, saga);
      },
    ]),
  );

/** Tells a broker, which has no sidecar; it brings the message to the worker later. */
function accept(request: Request): void {
  const { work } = request;
  const brings = async (): Promise<void> => {
    await work.sleep(work.draws.between(`${request.path} brought`, 1, 80));
    await work.enter(`${request.entry} message`, 'worker', 'POST /events');
  };
  void work.track(brings());
}

/** Stock changes are published; the indexer fetches them, some while the order is under way. */
async function reserved(request: Request): Promise<void> {
  const { work } = request;
  await request.call('inventory', 'POST /adjust');
  request.effect('reserved');
  if (!work.draws.chance(`${request.path} published`, 0.4)) return;
  const later = work.sleep(work.draws.between(`${request.path} fetched`, 1, 120));
  const index = async (consumer: Request): Promise<void> => {
    await consumer.call('search', 'POST /reindex');
    await consumer.call('crm', 'POST /touch');
    consumer.effect('indexed');
  };
  void work.track(later.then(() => work.consume(`${request.path} indexed`, request, 'indexer', index)));
}

async function released(request: Request): Promise<void> {
  await request.call('inventory', 'POST /adjust');
  request.effect('reserved', 'undone');
}

function refunded(provider: string): Operation {
  return {
    ms: [2, 10],
    flaky: 0.05,
    run: request => {
      request.work.refundsDelivered += 1;
      request.effect(`charged by ${provider}`, 'undone');
    },
  };
}

const charged = (provider: string): Operation => ({
  ms: [3, 12],
  broken: 0.12,
  flaky: 0.08,
  slow: 0.04,
  run: request => request.effect(`charged by ${provider}`),
});

const [createLabel, voidLabel] = pair('label', { ms: [15, 60], flaky: 0, broken: 0.03, slow: 0.02 });
const [orderPickup, cancelPickup] = pair('pickup', { ms: [10, 40] });
const [createTicket, voidTicket] = pair('ticket', { ms: [4, 20], broken: 0.2 });
const [addPoints, revokePoints] = pair('points', { ms: [10, 50], broken: 0.02 });
const [activate, deactivate] = pair('active', { ms: [20, 60] });
/** The body says which of both it is to do. */
const putNote: Operation = {
  ms: [10, 40],
  run: request => request.effect('note', request.undoes ? 'undone' : 'done'),
};

export const SERVICES: Services = {
  gateway: {
    'POST /checkout': through('POST /checkout'),
    'POST /subscribe': through('POST /subscribe'),
    'POST /booking': through('POST /booking'),
    'GET /page': through('GET /page'),
    'POST /quote': through('POST /quote', 2),
    'POST /import': through('POST /import'),
    'POST /order': through('POST /order'),
  },
  shop: {
    'POST /checkout': { ms: [1, 4], run: checkout },
    'POST /subscribe': { ms: [1, 4], run: subscribe },
    'POST /booking': { ms: [1, 4], run: booking },
    'GET /page': { ms: [1, 4], run: page },
    'POST /quote': { ms: [1, 4], run: quote },
    'POST /import': { ms: [1, 4], run: position },
    'POST /order': { ms: [1, 4], run: accept },
  },
  worker: { 'POST /events': { ms: [1, 4], run: position } },
  indexer: {},
  catalog: {
    'GET /price': { ms: [1, 6], flaky: 0.08 },
    'GET /list': { ms: [2, 10], flaky: 0.1 },
    'GET /prices': { ms: [1, 6] },
  },
  reviews: { 'GET /top': { ms: [2, 12], broken: 0.2 }, 'GET /photos': { ms: [2, 12] } },
  tax: { 'GET /rate': { ms: [2, 8], stuck: 0.15 } },
  audit: { 'POST /record': { ms: [2, 8], run: request => request.effect('recorded') } },
  payment: { 'POST /charge': charged('payment'), 'POST /refund': refunded('payment') },
  paysafe: { 'POST /charge': charged('paysafe'), 'POST /refund': refunded('paysafe') },
  stock: {
    'POST /reserve': { ms: [3, 20], broken: 0.04, run: reserved },
    'POST /release': { ms: [2, 8], flaky: 0.05, run: released },
  },
  inventory: { 'POST /adjust': { ms: [1, 6] } },
  shipping: {
    'POST /label': createLabel,
    'DELETE /label': voidLabel,
    'POST /pickup': orderPickup,
    'DELETE /pickup': cancelPickup,
    'POST /ticket': createTicket,
    'DELETE /ticket': voidTicket,
  },
  loyalty: { 'POST /points': addPoints, 'POST /revoke': revokePoints },
  crm: {
    'POST /activate': activate,
    'POST /deactivate': deactivate,
    'PUT /note': putNote,
    'POST /touch': { ms: [5, 30] },
  },
  search: {
    'GET /seats': { ms: [3, 10] },
    'GET /similar': { ms: [3, 20], broken: 0.1, slow: 0.2 },
    'POST /log': { ms: [2, 10] },
    'POST /reindex': { ms: [5, 40] },
  },
  mail: { 'POST /send': { ms: [2, 10], broken: 0.1, run: request => request.effect('mail') } },
};
