import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { HttpServer } from '../../collector/src/http/server.js';
import { openLog } from '../../collector/src/log.js';
import type { ReadParts } from '../../collector/src/rpc/parts.js';

describe('an HTTP answer that nobody reads', () => {
  it('is not kept for ever: its connection is closed, and one that reads gets all of it', async () => {
    const text = 'x'.repeat(30_000_000); // more than sockets take
    const server = new HttpServer({
      reads: { staleMs: () => 0 } as ReadParts,
      metrics: () => Promise.resolve({ text, contentType: 'text/plain' }),
      ready: () => true,
      log: openLog('silent'),
      unreadMs: 200,
    });
    const port = await server.listen({ host: '127.0.0.1', port: 0 });
    try {
      const socket = connect(port, '127.0.0.1', () => socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n'));
      socket.on('error', () => undefined).pause();
      await new Promise(resolve => setTimeout(resolve, 1500));
      let bytes = 0;
      socket.on('data', (piece: Buffer) => (bytes += piece.length)).resume();
      await new Promise(resolve => socket.once('close', resolve));
      assert.ok(bytes < text.length, `${bytes} bytes came`);
      assert.equal((await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()).length, text.length);
    } finally {
      await server.stop();
    }
  });
});
