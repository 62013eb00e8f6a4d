// Gorelay does in Go what voicefleet's relay does to a packet, and less: the stand-in for a relay written as the engineering
// post describes its own (SO_REUSEPORT, goroutines locked to threads, few allocations). The first datagram of an address
// makes its flow, unauthenticated; media then goes to the owner behind an SPP header, over one inner socket per worker, and
// comes back by the header's client address. Flows carry counters and a last-seen time.
//
//	gorelay -public 10.1.0.1:3478 -inner 10.2.0.1 -owner 10.2.0.2:7000 [-workers 1] [-lock=false] [-procs 2] [-batch 32]
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	headerBytes  = 38
	slotBytes    = 2048
	reusePort    = 15  // SO_REUSEPORT
	sysSendmmsg  = 307 // linux/amd64
	receiveBytes = 4 << 20
)

type flow struct {
	header               [headerBytes]byte
	client               netip.AddrPort
	clientUDP            *net.UDPAddr // for batches, which take net.Addr
	packetsIn, bytesIn   uint64
	packetsOut, bytesOut uint64
	seen                 atomic.Int64
}

type worker struct {
	outside, inside *net.UDPConn
	relay, owner    netip.AddrPort
	lock            sync.RWMutex
	flows           map[netip.AddrPort]*flow
}

var lock bool
var clock atomic.Int64 // seconds, moved by one ticker: no system call per packet

func (w *worker) flowOf(client netip.AddrPort) *flow {
	w.lock.RLock()
	f := w.flows[client]
	w.lock.RUnlock()
	if f != nil {
		return f
	}
	f = &flow{client: client}
	c, r := client.Addr().As16(), w.relay.Addr().As16()
	binary.BigEndian.PutUint16(f.header[0:], 0x56EC)
	copy(f.header[2:], c[:])
	copy(f.header[18:], r[:])
	binary.BigEndian.PutUint16(f.header[34:], client.Port())
	binary.BigEndian.PutUint16(f.header[36:], w.relay.Port())
	w.lock.Lock()
	w.flows[client] = f
	w.lock.Unlock()
	return f
}

func (w *worker) flowBehind(header []byte) *flow {
	if len(header) < headerBytes || header[0] != 0x56 || header[1] != 0xEC {
		return nil
	}
	client := netip.AddrPortFrom(netip.AddrFrom16([16]byte(header[2:18])).Unmap(), binary.BigEndian.Uint16(header[34:]))
	w.lock.RLock()
	defer w.lock.RUnlock()
	return w.flows[client]
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func (w *worker) inward() {
	if lock {
		runtime.LockOSThread()
	}
	buffer := make([]byte, headerBytes+slotBytes)
	for {
		n, from, err := w.outside.ReadFromUDPAddrPort(buffer[headerBytes:])
		if err != nil {
			continue
		}
		f := w.flowOf(unmapped(from))
		f.packetsIn++
		f.bytesIn += uint64(n)
		f.seen.Store(clock.Load())
		copy(buffer, f.header[:])
		_, _ = w.inside.WriteToUDPAddrPort(buffer[:headerBytes+n], w.owner)
	}
}

func (w *worker) outward() {
	if lock {
		runtime.LockOSThread()
	}
	buffer := make([]byte, slotBytes)
	for {
		n, from, err := w.inside.ReadFromUDPAddrPort(buffer)
		if err != nil || unmapped(from) != w.owner {
			continue
		}
		f := w.flowBehind(buffer[:n])
		if f == nil {
			continue
		}
		f.packetsOut++
		f.bytesOut += uint64(n - headerBytes)
		f.seen.Store(clock.Load())
		_, _ = w.outside.WriteToUDPAddrPort(buffer[headerBytes:n], f.client)
	}
}

// Blocking recvmmsg and sendmmsg on a locked thread, in memory that is laid out once: what Go can do at its best. (The batches
// of golang.org/x/net allocate an address for each datagram and wait in the poller: dearer than one datagram per call here.)
type batch struct {
	headers   []message
	vectors   []syscall.Iovec
	names     []syscall.RawSockaddrInet4
	slots     []byte
	slotBytes int
}

type message struct {
	header syscall.Msghdr
	length uint32
	_      [4]byte
}

func newBatch(count int) *batch {
	const size = headerBytes + slotBytes
	b := &batch{make([]message, count), make([]syscall.Iovec, count), make([]syscall.RawSockaddrInet4, count), make([]byte, count*size), size}
	for i := range b.headers {
		b.headers[i].header = syscall.Msghdr{Name: (*byte)(unsafe.Pointer(&b.names[i])), Namelen: syscall.SizeofSockaddrInet4, Iov: &b.vectors[i], Iovlen: 1}
	}
	return b
}

func (b *batch) slot(i int) []byte { return b.slots[i*b.slotBytes : (i+1)*b.slotBytes] }

func (b *batch) address(i int) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&b.names[i].Port))
	return netip.AddrPortFrom(netip.AddrFrom4(b.names[i].Addr), binary.BigEndian.Uint16(port[:]))
}

// read fills each slot from the offset on; it returns how many.
func (b *batch) read(fd uintptr, offset int) int {
	for i := range b.vectors {
		b.vectors[i] = syscall.Iovec{Base: &b.slot(i)[offset], Len: slotBytes}
		b.headers[i].header.Namelen = syscall.SizeofSockaddrInet4
	}
	n, _, e := syscall.Syscall6(syscall.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])), uintptr(len(b.headers)), syscall.MSG_WAITFORONE, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func (b *batch) write(fd uintptr, count int) {
	for done := 0; done < count; {
		n, _, e := syscall.Syscall6(sysSendmmsg, fd, uintptr(unsafe.Pointer(&b.headers[done])), uintptr(count-done), 0, 0, 0)
		if e != 0 || n == 0 {
			n = 1
		}
		done += int(n)
	}
}

// keep moves what slot i holds to be datagram number k of the next write.
func (b *batch) keep(k, i, from, to int, address netip.AddrPort) {
	b.vectors[k] = syscall.Iovec{Base: &b.slot(i)[from], Len: uint64(to - from)}
	b.names[k].Addr = address.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&b.names[k].Port))[:], address.Port())
}

func (w *worker) inwardBatch(count int) {
	runtime.LockOSThread()
	b, from, to := newBatch(count), blocking(w.outside), blocking(w.inside)
	for {
		n := b.read(from, headerBytes)
		for i := range n {
			f, length := w.flowOf(b.address(i)), int(b.headers[i].length)
			f.packetsIn++
			f.bytesIn += uint64(length)
			f.seen.Store(clock.Load())
			copy(b.slot(i), f.header[:])
			b.keep(i, i, 0, headerBytes+length, w.owner)
		}
		b.write(to, n)
	}
}

func (w *worker) outwardBatch(count int) {
	runtime.LockOSThread()
	b, from, to := newBatch(count), blocking(w.inside), blocking(w.outside)
	for {
		kept := 0
		for i := range b.read(from, 0) {
			length := int(b.headers[i].length)
			if b.address(i) != w.owner {
				continue
			}
			f := w.flowBehind(b.slot(i)[:length])
			if f == nil {
				continue
			}
			f.packetsOut++
			f.bytesOut += uint64(length - headerBytes)
			f.seen.Store(clock.Load())
			b.keep(kept, i, headerBytes, length, f.client)
			kept++
		}
		b.write(to, kept)
	}
}

func blocking(conn *net.UDPConn) uintptr {
	file, err := conn.File() // a duplicate; Fd makes it, and the socket, blocking
	if err != nil {
		log.Fatal(err)
	}
	return file.Fd()
}

func listen(address string) *net.UDPConn {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1)
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBytes)
		})
	}}
	conn, err := config.ListenPacket(context.Background(), "udp4", address)
	if err != nil {
		log.Fatal(err)
	}
	return conn.(*net.UDPConn)
}

func main() {
	public := flag.String("public", "", "public address:port")
	inner := flag.String("inner", "", "inner address")
	owner := flag.String("owner", "", "the owner's address:port")
	workers := flag.Int("workers", 1, "sockets and goroutines each way")
	procs := flag.Int("procs", 1, "GOMAXPROCS")
	flag.BoolVar(&lock, "lock", true, "lock goroutines to threads")
	batch := flag.Int("batch", 0, "datagrams per system call (0: one)")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)
	clock.Store(time.Now().Unix())
	go func() {
		for t := range time.Tick(time.Second / 2) {
			clock.Store(t.Unix())
		}
	}()
	for range *workers {
		w := &worker{outside: listen(*public), inside: listen(*inner + ":0"), owner: netip.MustParseAddrPort(*owner), flows: map[netip.AddrPort]*flow{}}
		w.relay = unmapped(w.inside.LocalAddr().(*net.UDPAddr).AddrPort())
		if *batch > 0 {
			go w.inwardBatch(*batch)
			go w.outwardBatch(*batch)
		} else {
			go w.inward()
			go w.outward()
		}
	}
	fmt.Println("ready")
	select {}
}
