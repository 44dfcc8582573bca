// HTTP/3 by quic-go: the same feed as the other peers have, as the `frames` format of h3cast.
//
// Configured: nothing beyond the certificate and the socket. Built against what Debian packages,
// without modules: see ../README.md.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/lucas-clemente/quic-go/http3"
)

const (
	kindChunk = 0
	kindGap   = 1
	kindEnd   = 2
	kindBegin = 3

	// How many frames a viewer may be behind before it loses the newest.
	capacity = 1024
	// How many bytes of a file go into one chunk.
	piece = 64 << 10
	// What h3cast and the other peers ask of the system for a socket.
	udpBuffer = 4 << 20
)

// QUIC's variable-length integers, RFC 9000 section 16.
func varint(out []byte, value uint64) []byte {
	switch {
	case value < 1<<6:
		return append(out, byte(value))
	case value < 1<<14:
		return binary.BigEndian.AppendUint16(out, 1<<14|uint16(value))
	case value < 1<<30:
		return binary.BigEndian.AppendUint32(out, 1<<31|uint32(value))
	default:
		return binary.BigEndian.AppendUint64(out, 3<<62|value)
	}
}

func header(kind uint64, integers []uint64, rest int) []byte {
	var body []byte
	for _, integer := range integers {
		body = varint(body, integer)
	}
	return append(varint(varint(nil, kind), uint64(len(body)+rest)), body...)
}

func frame(kind uint64, integers []uint64, rest []byte) []byte {
	return append(header(kind, integers, len(rest)), rest...)
}

func now() uint64 { return uint64(time.Now().UnixMicro()) }

// A viewer's queue, and how many frames did not fit in since the last that did.
type viewer struct {
	frames chan []byte
	missed uint64
}

type feed struct {
	epoch   uint64
	lock    sync.Mutex
	viewers map[*viewer]struct{}
}

// Publishes forever, at multiples of the interval from the start.
func (f *feed) publish(interval time.Duration, size int) {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = '.'
	}
	start := time.Now()
	for seq := uint64(0); ; seq++ {
		time.Sleep(time.Until(start.Add(time.Duration(seq) * interval)))
		encoded := frame(kindChunk, []uint64{seq, now()}, payload)
		f.lock.Lock()
		for v := range f.viewers {
			v.offer(seq, encoded)
		}
		f.lock.Unlock()
	}
}

// Queues a frame, after a gap if some before it were lost.
func (v *viewer) offer(seq uint64, encoded []byte) {
	if v.missed > 0 {
		select {
		case v.frames <- frame(kindGap, []uint64{seq - v.missed, v.missed, 0}, nil):
			v.missed = 0
		default:
			v.missed++
			return
		}
	}
	select {
	case v.frames <- encoded:
	default:
		v.missed++
	}
}

func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	v := &viewer{frames: make(chan []byte, capacity)}
	f.lock.Lock()
	f.viewers[v] = struct{}{}
	f.lock.Unlock()
	defer func() {
		f.lock.Lock()
		delete(f.viewers, v)
		f.lock.Unlock()
	}()
	if _, err := w.Write(frame(kindBegin, []uint64{f.epoch}, nil)); err != nil {
		return
	}
	w.(http.Flusher).Flush()
	for {
		select {
		case encoded := <-v.frames:
			if _, err := w.Write(encoded); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// A file in chunks, each read when the transport has taken the one before.
func serveFile(path string, w http.ResponseWriter) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := w.Write(frame(kindBegin, []uint64{now()}, nil)); err != nil {
		return err
	}
	buffer := make([]byte, piece)
	for seq := uint64(0); ; seq++ {
		n, err := io.ReadFull(file, buffer)
		if n > 0 {
			if _, err := w.Write(header(kindChunk, []uint64{seq, now()}, n)); err != nil {
				return err
			}
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			_, err = w.Write(frame(kindEnd, []uint64{0}, nil))
			return err
		}
		if err != nil {
			return err
		}
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address and port; port 0 is any free one")
	interval := flag.Duration("interval", 10*time.Millisecond, "time between two chunks")
	size := flag.Int("size", 16, "bytes in a chunk")
	path := flag.String("file", "", "send each viewer this file, instead of the live feed")
	threads := flag.Int("threads", 1, "threads that run Go code")
	certs := flag.String("certs", ".", "folder of cert.pem and key.pem, as `peers cert` writes them")
	untilStdinEnds := flag.Bool("until-stdin-ends", false, "end when standard input does")
	flag.Parse()
	runtime.GOMAXPROCS(*threads)
	certificate, err := tls.LoadX509KeyPair(*certs+"/cert.pem", *certs+"/key.pem")
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", *listen)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	// The system may give less, which is the same for all peers.
	_ = socket.SetReadBuffer(udpBuffer)
	_ = socket.SetWriteBuffer(udpBuffer)
	handler := func(w http.ResponseWriter, _ *http.Request) {
		// A viewer that goes away is no error of the server's.
		_ = serveFile(*path, w)
	}
	if *path == "" {
		live := &feed{epoch: now(), viewers: map[*viewer]struct{}{}}
		handler = live.serve
		go live.publish(*interval, *size)
	}
	if *untilStdinEnds {
		go func() {
			_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
			os.Exit(0)
		}()
	}
	server := http3.Server{
		Handler:   http.HandlerFunc(handler),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	fmt.Println("ready", socket.LocalAddr().(*net.UDPAddr).Port)
	return server.Serve(socket)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "quic-go:", err)
		os.Exit(1)
	}
}
