// A certificate authority on this machine: Pebble, the ACME server that Let's Encrypt tests clients with.
import { execFile, spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import https from 'node:https';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const READY_MS = 60_000;

/** A port of this machine that nothing else has now. @returns {Promise<number>} */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

/** @param {number} port @param {() => Promise<string>} log */
async function answers(port, log) {
  for (const end = Date.now() + READY_MS; ;) {
    const open = await new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (open) return;
    if (Date.now() > end) throw new Error(`nothing listens at ${port}\n${await log()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** All names lead to this machine. */
export class Pebble {
  /** @type {import('node:child_process').ChildProcess[]} */
  #children = [];

  /**
   * @param {string} folder
   * @param {number} directory its port
   * @param {string} ca the certificate of its directory, which clients have to be told to trust
   * @param {string} root that of the certificates that it issues
   */
  constructor(folder, directory, ca, root) {
    this.folder = folder;
    this.directory = `https://localhost:${directory}/dir`;
    this.ca = ca;
    this.root = root;
  }

  /**
   * Starts it from an empty state.
   * @param {number} tls the port at which it validates names
   * @param {number} days for which its certificates are valid
   */
  static async start(tls, days) {
    const folder = await mkdtemp(path.join(tmpdir(), 'h3cast-pebble-'));
    const [directory, management, dns, control] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    // Its own certificate.
    const [certificate, key, settings] = ['directory.pem', 'directory.key', 'directory.cnf'].map((name) => path.join(folder, name));
    await writeFile(settings, '[req]\ndistinguished_name = none\n[none]\n');
    await run('openssl', ['req', '-config', settings, '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
      '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '1', '-keyout', key, '-out', certificate]);
    const pebble = new Pebble(folder, directory, certificate, path.join(folder, 'root.pem'));
    const config = {
      listenAddress: `127.0.0.1:${directory}`,
      managementListenAddress: `127.0.0.1:${management}`,
      certificate,
      privateKey: key,
      httpPort: 1,
      tlsPort: tls,
      ocspResponderURL: '',
      externalAccountBindingRequired: false,
      certificateValidityPeriod: days * 24 * 3600,
    };
    await writeFile(path.join(folder, 'pebble.json'), JSON.stringify({ pebble: config }));
    const log = path.join(folder, 'pebble.log');
    const start = (/** @type {string} */ name, /** @type {string[]} */ ...args) => {
      const out = openSync(log, 'a');
      // It does not wait before it validates.
      const child = spawn(name, args, { stdio: ['ignore', out, out], env: { ...process.env, PEBBLE_VA_NOSLEEP: '1' } });
      child.on('error', () => {}); // nothing listens then
      pebble.#children.push(child);
    };
    const none = ['-http01', '', '-https01', '', '-tlsalpn01', '', '-defaultIPv6', '', '-defaultIPv4', '127.0.0.1'];
    start('pebble-challtestsrv', '-management', `127.0.0.1:${control}`, '-dns01', `127.0.0.1:${dns}`, ...none);
    start('pebble', '-config', path.join(folder, 'pebble.json'), '-dnsserver', `127.0.0.1:${dns}`);
    try {
      for (const port of [directory, management, control]) await answers(port, () => readFile(log, 'utf8'));
      await writeFile(pebble.root, await get(`https://localhost:${management}/roots/0`, await readFile(certificate)));
    } catch (error) {
      await pebble.stop();
      throw error;
    }
    return pebble;
  }

  async stop() {
    for (const child of this.#children) child.kill('SIGKILL');
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** @param {string} url @param {Buffer} ca @returns {Promise<string>} */
function get(url, ca) {
  return new Promise((resolve, reject) => {
    https.get(url, { ca }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => { text += part; }).on('end', () => resolve(text)).on('error', reject);
    }).on('error', reject);
  });
}
