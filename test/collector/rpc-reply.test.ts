import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Reply } from '../../collector/src/ingest/ingest.js';
import { encodeReply } from '../../collector/src/rpc/encode-reply.js';
import { service } from '../../collector/src/rpc/protos.js';

const { responseSerialize, responseDeserialize } = service('Ingest')['Report']!;

const id = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String);
const ack = fc.record({ producer: id, seq: fc.maxSafeNat().map(String), durable: fc.boolean() });
const reply: fc.Arbitrary<Reply> = fc.record(
  {
    acks: fc.array(ack, { maxLength: 256 }),
    receivedUnixUs: id,
    echoSentUnixUs: id,
    hints: fc.record({ intervalMs: fc.nat(60_000), sampleRatio: fc.double({ min: 0, max: 1, noNaN: true }) }),
    directives: fc.constant([{ version: '7', ttlMs: 1000, kind: 'DIRECTIVE_KIND_CLEAR' }]),
  },
  { requiredKeys: ['acks', 'receivedUnixUs', 'echoSentUnixUs'] },
);

describe('replies to reports', () => {
  it('say what generated code would have said', () => {
    fc.assert(
      fc.property(reply, said => {
        const bytes = encodeReply(said, responseSerialize);
        assert.deepEqual(responseDeserialize(bytes), responseDeserialize(responseSerialize(said)));
      }),
    );
  });

  it('are written without generated code when they only acknowledge', () => {
    const said = { acks: [{ producer: '1', seq: '300', durable: true }], receivedUnixUs: '1', echoSentUnixUs: '2' };
    assert.doesNotThrow(() => encodeReply(said, () => assert.fail('asked for generated code')));
  });
});
