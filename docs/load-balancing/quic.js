// Finds the edge that a QUIC packet is for, for nginx-by-id.conf. The edge's --server-id is in the
// connection ids that it gives its clients, in the unencrypted form of draft-ietf-quic-load-balancers:
// one byte about the configuration, then the id.

// Length of the server ids, in bytes.
const SERVER_ID = 1;
// A long header has the connection id after its version and a byte for its length (RFC 8999 §5.1), a
// short one after its first byte (§5.2).
const LONG = 0x80, AT_LONG = 6, AT_SHORT = 1;

let found = '';

// Called with the first packet from an address and port, in hexadecimal.
function read(s) {
    s.on('upstream', function (packet) {
        if (packet.length) {
            // Before the edge has answered, the id is the client's and random: then any edge will do.
            const at = (packet[0] & LONG) ? AT_LONG : AT_SHORT;
            found = packet.slice(at + 1, at + 1 + SERVER_ID).toString('hex');
            s.done();
        }
    });
}

function edge() {
    return found;
}

export default { read, edge };
