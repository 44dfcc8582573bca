// A network in between, which a test can break: passes TCP and UDP on to a server.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

/** Where the server is, and another address of this machine: the page's own URL decides which way it goes. */
const SERVER = '127.0.0.1';
const HERE = '127.0.0.2';

/** Stands at 127.0.0.2 for a server at 127.0.0.1, on the same ports. */
export class Relay {
  /** UDP packets vanish, as behind a firewall. */
  udpBlocked = false;
  /** How many UDP packets were passed on, and how many vanished. */
  passed = 0;
  vanished = 0;
  /** How many TCP connections were made. */
  connections = 0;
  /** @type {Map<number, import('node:dgram').Socket>} one towards the server for each client, by its port */
  #clients = new Map();
  /** @type {Set<net.Socket>} */
  #sockets = new Set();
  /** @type {net.Server[]} */
  #listeners = [];
  #udp = createSocket('udp4');

  /** The origins at which the server is found behind the relay. */
  base = '';
  plain = '';

  /** @param {import('./server.mjs').Server} server at 127.0.0.1 */
  static async start(server) {
    const relay = new Relay();
    const plain = Number(new URL(server.plain).port);
    relay.base = `https://${HERE}:${server.port}`;
    relay.plain = `http://${HERE}:${plain}`;
    relay.#udp.on('message', (packet, from) => relay.#toServer(packet, from, server.port));
    relay.#udp.bind(server.port, HERE);
    await once(relay.#udp, 'listening');
    for (const port of [server.port, plain]) {
      const listener = net.createServer((client) => relay.#join(client, port));
      listener.listen(port, HERE);
      await once(listener, 'listening');
      relay.#listeners.push(listener);
    }
    return relay;
  }

  /** @param {Buffer} packet @param {import('node:dgram').RemoteInfo} from @param {number} to */
  #toServer(packet, from, to) {
    if (this.#lost()) return;
    let socket = this.#clients.get(from.port);
    if (socket === undefined) {
      socket = createSocket('udp4');
      socket.on('message', (answer) => {
        if (!this.#lost()) this.#udp.send(answer, from.port, from.address);
      });
      socket.on('error', () => {}); // a server that is gone
      this.#clients.set(from.port, socket);
    }
    socket.send(packet, to, SERVER);
  }

  #lost() {
    if (this.udpBlocked) this.vanished += 1;
    else this.passed += 1;
    return this.udpBlocked;
  }

  /** @param {net.Socket} client @param {number} port */
  #join(client, port) {
    this.connections += 1;
    const server = net.connect(port, SERVER);
    for (const [from, to] of [[client, server], [server, client]]) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }

  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    for (const socket of this.#clients.values()) socket.close();
    await Promise.all([this.#udp, ...this.#listeners].map((socket) => {
      const closed = once(socket, 'close');
      socket.close();
      return closed;
    }));
  }
}
