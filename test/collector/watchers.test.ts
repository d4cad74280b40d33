import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { Outbox, sharedBytes, UNREAD_MS_MAX } from '../../collector/src/rpc/outbox.js';
import { service } from '../../collector/src/rpc/protos.js';
import { batch, CUID, hello, type Plain } from './ingest-support.js';
import { frame, RawClient } from './raw-calls.js';
import { start, until } from './rpc-support.js';

/** A call that takes two messages and is then full until told otherwise. */
class FakeCall extends EventEmitter {
  readonly sent: unknown[] = [];
  room = 2;

  write(message: unknown): boolean {
    this.sent.push(message);
    return --this.room > 0;
  }

  read(room: number): void {
    this.room = room;
    this.emit('drain');
  }
}

describe('what a watcher is still to be told', () => {
  const open = (): { call: FakeCall; outbox: Outbox; clock: { ms: number }; ends: unknown[] } => {
    const call = new FakeCall();
    const clock = { ms: 0 };
    const ends: unknown[] = [];
    call.on('error', error => ends.push(error));
    const outbox = new Outbox(call as unknown as ConstructorParameters<typeof Outbox>[0], () => clock.ms);
    return { call, outbox, clock, ends };
  };

  it('waits in order while nothing is read, and goes on when there is room', () => {
    const { call, outbox } = open();
    for (let n = 0; n < 10; n++) outbox.send({ n });
    assert.deepEqual([call.sent.length, outbox.waiting, outbox.blocked], [2, 8, true]);
    outbox.passOver();
    call.read(3);
    assert.equal(outbox.blocked, true);
    call.read(100);
    assert.deepEqual(
      call.sent.map(one => (one as { n: number }).n),
      [0, 1, 3, 4, 5, 6, 7, 8, 9],
    );
    assert.deepEqual([outbox.blocked, outbox.waiting], [false, 0]);
  });

  it('is given up when nothing is read for too long, once', () => {
    const { call, outbox, clock, ends } = open();
    for (let n = 0; n < 10; n++) outbox.send({ n });
    clock.ms += UNREAD_MS_MAX;
    assert.equal(outbox.endIfUnread(), false);
    clock.ms += 1;
    assert.equal(outbox.endIfUnread(), true);
    assert.equal(outbox.endIfUnread(), true);
    assert.deepEqual(
      ends.map(one => (one as { code: number }).code),
      [8],
    );
    outbox.send({ n: 11 });
    call.read(100);
    assert.equal(call.sent.length, 2);
  });

  it('is made into bytes once for all who are told', () => {
    const one = { cuid: CUID };
    let made = 0;
    const make = (): object => ((made += 1), one);
    assert.equal(sharedBytes('Instance', one, make), sharedBytes('Instance', one, make));
    assert.equal(made, 1);
  });
});

describe('watchers of status', function () {
  this.timeout(60_000);
  const LIVES = 1500;

  it('that read nothing are ended, while others are told of everything', async () => {
    const collector = await start(['--peer-messages-per-second', '1000000']);
    const client = new RawClient(collector.running.grpc);
    try {
      const lives = Array.from({ length: LIVES }, (_, n) => {
        const cuid = `${n.toString(16).padStart(8, '0')}${CUID.slice(8)}`;
        const who = { cuid, proxyId: `p${n}`, ip: `10.0.${n >> 8}.${n & 255}`, workload: 'w'.repeat(200) };
        return { hello: hello(who), batches: [batch(1, [{}])] };
      });
      for (const one of lives) await collector.call('Ingest.ReportOnce', one);
      const stream = client.session.request({
        ':method': 'POST',
        ':path': '/meshpulse.v1.Registry/WatchStatus',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      stream.on('error', () => undefined);
      stream.end(frame(service('Registry')['WatchStatus']!.requestSerialize({ minIntervalMs: 100 })));
      const seen = new Set<unknown>();
      let synced = false;
      const watch = collector.clients.stream('Registry.WatchStatus', { minIntervalMs: 100 });
      watch.on('error', () => undefined);
      watch.on('data', (update: Plain) => {
        seen.add((update['instance'] as Plain | undefined)?.['cuid']);
        synced ||= update['synced'] === true;
      });
      await until('the reader is told of all', () => (synced && seen.size > LIVES ? true : undefined));
      collector.clock.advanceMs(UNREAD_MS_MAX + 1);
      collector.running.tick();
      await new Promise(resolve => setTimeout(resolve, 300));
      let status: unknown;
      stream.on('trailers', (headers: Plain) => (status = headers['grpc-status']));
      stream.resume();
      await until('the one that read nothing is ended', () => (status === undefined ? undefined : true));
      assert.equal(status, '8');
      watch.cancel();
    } finally {
      client.close();
      await collector.stop();
    }
  });
});
