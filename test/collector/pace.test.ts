import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import type { Server, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import { answeringAtTheirPace } from '../../collector/src/rpc/pace.js';

type Handler = (call: Duplex) => void;

describe('a service of a library', () => {
  it('is not asked on while its answers are not read', async () => {
    let handlers: Record<string, Handler> = {};
    const server = {
      addService: (_: ServiceDefinition, methods: UntypedServiceImplementation) =>
        (handlers = methods as unknown as Record<string, Handler>),
    };
    const answers: Handler = call => void call.on('data', (question: object) => call.write(question));
    answeringAtTheirPace(server as unknown as Server).addService({}, {
      ask: answers,
    } as unknown as UntypedServiceImplementation);
    const taken: (() => void)[] = [];
    let questions = 0;
    const call = new Duplex({
      objectMode: true,
      highWaterMark: 4,
      read() {
        this.push({ question: ++questions });
      },
      write: (_chunk, _encoding, done) => void taken.push(done),
    });
    handlers['ask']!(call);
    await new Promise(resolve => setTimeout(resolve, 20));
    assert.ok(call.isPaused() && questions < 20, `${questions} questions taken, none of the answers`);
    const before = questions;
    for (let n = 0; n < 50; n++) {
      taken.splice(0).forEach(done => done());
      await new Promise(resolve => setImmediate(resolve));
    }
    assert.ok(questions > before, 'it goes on when they are read');
    call.destroy();
  });
});
