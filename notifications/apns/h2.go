package apns

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// maxConnections to one host. Apple asks for few long-lived ones.
	maxConnections = 4

	// unlimitedStreams stands for a peer that announces no limit; one that
	// announces more is not taken at its word.
	unlimitedStreams = 1000

	// maxBody is how much of an answer is read. Apple's have 100 bytes.
	maxBody = 16 << 10

	initialWindow = 65535 // RFC 9113, 6.9.2
	initialFrame  = 16384 // RFC 9113, 4.2
	frameHeader   = 9
)

// timing of a link's connections.
type timing struct {
	dial        time.Duration // connecting, the handshake and the peer's first SETTINGS together
	write       time.Duration // one write; a peer that reads nothing for so long is gone
	quiet       time.Duration // silence while answers are awaited, before a PING asks whether anybody is there
	idlePing    time.Duration // the same while nothing is awaited
	pingTimeout time.Duration // silence after a PING that means the connection is dead
	idle        time.Duration // a connection without requests for so long is closed
	growth      time.Duration // before another connection is opened beside a working one
}

// A connection that swallows everything is given up within half a minute: ten
// seconds of silence, ten for the answer to the PING, and a beat of five in which
// either is noticed.
var defaultTiming = timing{
	dial: 20 * time.Second, write: 15 * time.Second, quiet: 10 * time.Second, idlePing: time.Minute, pingTimeout: 10 * time.Second,
	idle: 15 * time.Minute, growth: time.Second,
}

// callError is why a request has no answer.
type callError struct {
	left bool // all of it was handed to the connection
	down bool // there is no connection to be had
	// refused by the peer, unread: it says that it processed nothing of it.
	refused bool
	reason  string // from a GOAWAY; may be empty
	err     error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

var (
	errClosed     = errors.New("the provider is closed")
	errNoHTTP2    = errors.New("the server does not speak HTTP/2")
	errNoSettings = errors.New("the server does not begin with SETTINGS")
	errSilent     = errors.New("no byte came for too long, not even for a PING")
	errExhausted  = errors.New("no connection took the request")
	errIdle       = errors.New("the connection was not used any more")
	errDrained    = errors.New("the connection was given up by the server")
)

type callState uint8

const (
	stateWaiting  callState = iota // in a queue: nothing has left
	stateOpen                      // its headers have left, its body has not in full
	stateSent                      // all has been handed to the connection
	stateFinished                  // decided
)

// profile are the headers that many requests have in common. On a connection
// they cost a byte each once the peer has them in its table.
type profile struct {
	authorization string // empty with a certificate
	topic         string
	pushType      string
	priority      string
	expiration    string // empty: none
	collapseID    string // empty: none
}

// call is one request on its way. It is used once.
type call struct {
	profile
	path string
	id   string // apns-id; empty: none
	body []byte

	done chan struct{} // one signal, when state is stateFinished

	// Guarded by the link's mu.
	state    callState
	conn     *conn // where it is queued or open
	streamID uint32
	off      int   // how much of the body has left
	window   int64 // of the stream, while the body has not left in full
	moves    int   // how often it went to another connection

	// The answer: read after done.
	status     int
	apnsID     string
	retryAfter string
	answer     []byte
	err        *callError
}

// link sends requests to one host over as few connections as it takes, and
// never more at a time on one than the host allows. It is safe for concurrent
// use.
type link struct {
	address   string // host:port
	authority string
	config    *tls.Config
	timing    timing
	changed   func() // called without mu whenever the capacity may have changed
	lastID    uint32 // the highest stream id

	life context.Context // ends with close
	end  context.CancelFunc

	mu      sync.Mutex
	conns   []*conn // those that are alive; draining ones among them
	waiting []*call // in their order; for a place on a connection
	dialing bool
	grownAt time.Time // when a connection was last opened, or the first push was accepted
	proven  bool      // a push was accepted: until then one connection must do
	closed  bool
}

func newLink(address, authority string, config *tls.Config, changed func()) *link {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	config.MinVersion = tls.VersionTLS12
	config.DynamicRecordSizingDisabled = true // many requests go out in one record
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	l := &link{address: address, authority: authority, config: config, timing: defaultTiming, changed: changed, lastID: math.MaxInt32}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// do sends a request and waits for its answer, which is then in c. The error is
// a [*callError] and stands in c as well.
func (l *link) do(ctx context.Context, c *call) error {
	if err := ctx.Err(); err != nil {
		c.err = &callError{err: err}
		return c.err
	}
	c.done = make(chan struct{}, 1)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		c.err = &callError{err: errClosed}
		return c.err
	}
	l.place(c)
	l.grow()
	l.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		l.abandon(c, ctx.Err())
	}
	if c.err != nil {
		return c.err
	}
	return nil
}

// place queues a call on a connection that has room, or leaves it waiting for
// one. The caller holds mu.
func (l *link) place(c *call) {
	c.state = stateWaiting
	for _, cn := range l.conns {
		if cn.room() {
			cn.enqueue(c)
			return
		}
	}
	l.waiting = append(l.waiting, c)
}

// settle gives waiting calls the places that have become free. The caller holds
// mu.
func (l *link) settle() {
	for _, cn := range l.conns {
		for len(l.waiting) > 0 && cn.room() {
			c := l.waiting[0]
			l.waiting[0] = nil
			l.waiting = l.waiting[1:]
			cn.enqueue(c)
		}
	}
	if len(l.waiting) == 0 {
		l.waiting = nil
	}
}

// abandon decides a call whose context has ended, unless its answer came in
// the same moment.
func (l *link) abandon(c *call, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c.state {
	case stateFinished:
		return
	case stateWaiting:
		if cn := c.conn; cn != nil {
			cn.queued--
		} else if i := slices.Index(l.waiting, c); i >= 0 {
			l.waiting = slices.Delete(l.waiting, i, i+1)
		}
		c.err = &callError{err: why, down: len(l.conns) == 0}
	default:
		c.err = &callError{err: why, left: c.state == stateSent}
		cn := c.conn
		cn.drop(c)
		cn.resetStream(c.streamID, http2.ErrCodeCancel)
		cn.poke()
	}
	c.state = stateFinished
	l.settle()
}

// finish decides a call. The caller holds mu.
func (l *link) finish(c *call, err *callError) {
	c.err, c.state = err, stateFinished
	c.done <- struct{}{}
}

// again gives a call of which nothing was processed to another connection, once
// or twice, and not for ever. The caller holds mu and has taken it off its
// connection.
func (l *link) again(c *call, err *callError, most int) {
	c.conn, c.streamID, c.off = nil, 0, 0
	if c.moves++; c.moves > most || l.closed {
		l.finish(c, err)
		return
	}
	l.place(c)
}

// usable returns the number of connections that take new requests, and how many
// requests they take together. The caller holds mu.
func (l *link) usable() (conns, streams int) {
	for _, cn := range l.conns {
		if !cn.draining {
			conns++
			streams += cn.limit
		}
	}
	return conns, streams
}

// capacity is how many requests the open connections take at a time.
func (l *link) capacity() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, streams := l.usable()
	return streams
}

// grow opens a connection when there is none, or another one when those that
// there are have nearly no room left. The caller holds mu.
func (l *link) grow() {
	if l.dialing || l.closed {
		return
	}
	conns, streams := l.usable()
	if conns > 0 {
		busy := len(l.waiting)
		for _, cn := range l.conns {
			if !cn.draining {
				busy += cn.queued + len(cn.streams)
			}
		}
		if busy*10 < streams*8 || !l.proven || conns >= maxConnections || streams >= maxInFlight || time.Since(l.grownAt) < l.timing.growth {
			return
		}
	} else if len(l.waiting) == 0 {
		return
	}
	l.dialing, l.grownAt = true, time.Now()
	go l.connect()
}

// connect opens a connection for those who wait.
func (l *link) connect() {
	cn, err := l.dial()
	l.mu.Lock()
	l.dialing = false
	switch {
	case err != nil:
		if conns, _ := l.usable(); conns == 0 {
			waiting := l.waiting
			l.waiting = nil
			for _, c := range waiting {
				l.finish(c, &callError{err: err, down: true})
			}
		}
	case l.closed:
		_ = cn.raw.Close()
	default:
		l.conns = append(l.conns, cn)
		go cn.read()
		go cn.write()
		cn.poke()
		cn.watchdog = time.AfterFunc(cn.beat(), cn.watch)
		l.settle()
	}
	l.grow()
	l.mu.Unlock()
	l.changed()
}

// close ends all connections. What has left stays without an answer.
func (l *link) close() {
	l.end()
	l.mu.Lock()
	l.closed = true
	for _, c := range l.waiting {
		l.finish(c, &callError{err: errClosed})
	}
	l.waiting = nil
	for len(l.conns) > 0 {
		l.conns[0].die(errClosed)
	}
	l.mu.Unlock()
	l.changed()
}

// retire lets a connection take no new requests.
func (l *link) retire(cn *conn) {
	l.mu.Lock()
	cn.drain()
	l.mu.Unlock()
	l.changed()
}

// conn is one HTTP/2 connection. What is not said to belong to the reader or
// the writer is guarded by the link's mu.
type conn struct {
	l    *link
	raw  *watchedConn
	tls  *tls.Conn
	br   *bufio.Reader
	wake chan struct{} // to the writer
	gone chan struct{} // closed when the connection is dead

	dead     bool
	draining bool   // takes no new requests; ends with its last one
	reason   string // of a GOAWAY
	watchdog *time.Timer
	pingedAt time.Time // zero: no PING is out
	idleAt   time.Time // since when nothing is awaited

	limit    int // how many streams the peer allows
	streams  map[uint32]*call
	queue    []*call // to be opened; decided ones are skipped
	queued   int     // how many of them are not decided
	partial  []*call // their body has not left in full
	nextID   uint32
	control  []byte // frames that go out before anything else
	window   int64  // how much body the peer takes on the connection
	initial  int64  // and on a new stream
	maxFrame int
	table    *uint32 // size of the peer's header table, once it has changed it

	w writer
	r reader
}

// watchedConn notes when bytes came.
type watchedConn struct {
	net.Conn
	last atomic.Int64 // Unix nanoseconds
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// dial connects and waits for the peer's settings: before them it is not known
// how many streams it allows.
func (l *link) dial() (*conn, error) {
	ctx, cancel := context.WithTimeout(l.life, l.timing.dial)
	defer cancel()
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, err
	}
	raw := &watchedConn{Conn: tcp}
	secure := tls.Client(raw, l.config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		return nil, err
	}
	cn := &conn{l: l, raw: raw, tls: secure, br: bufio.NewReaderSize(secure, 32<<10), wake: make(chan struct{}, 1), gone: make(chan struct{}),
		limit: unlimitedStreams, streams: map[uint32]*call{}, nextID: 1, window: initialWindow, initial: initialWindow, maxFrame: initialFrame,
		idleAt: time.Now()}
	cn.w.init(l.authority)
	cn.r.init(cn)
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	if err := cn.greet(); err != nil || !stop() {
		_ = tcp.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return cn, nil
}

func (cn *conn) greet() error {
	if cn.tls.ConnectionState().NegotiatedProtocol != "h2" {
		return errNoHTTP2
	}
	hello := append([]byte(http2.ClientPreface), 0, 0, 6, byte(http2.FrameSettings), 0, 0, 0, 0, 0)
	hello = binary.BigEndian.AppendUint16(hello, uint16(http2.SettingEnablePush))
	hello = binary.BigEndian.AppendUint32(hello, 0)
	if _, err := cn.tls.Write(hello); err != nil {
		return err
	}
	first, err := cn.r.framer.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := first.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return errNoSettings
	}
	return cn.onSettings(settings)
}

// room reports whether one more request may be queued. The caller holds mu.
func (cn *conn) room() bool {
	return !cn.draining && cn.queued+len(cn.streams) < cn.limit
}

// enqueue hands a call to the writer. The caller holds mu.
func (cn *conn) enqueue(c *call) {
	c.conn = cn
	cn.queue = append(cn.queue, c)
	cn.queued++
	cn.poke()
}

// poke wakes the writer.
func (cn *conn) poke() {
	select {
	case cn.wake <- struct{}{}:
	default:
	}
}

// drop takes an open call off the connection. The caller holds mu.
func (cn *conn) drop(c *call) {
	delete(cn.streams, c.streamID)
	if c.state == stateOpen {
		if i := slices.Index(cn.partial, c); i >= 0 {
			cn.partial = slices.Delete(cn.partial, i, i+1)
		}
	}
	if len(cn.queue) > 0 {
		cn.poke() // it may have waited for the place
	}
	if len(cn.streams) == 0 {
		cn.idleAt = time.Now()
		if cn.draining {
			cn.die(errDrained)
		}
	}
}

// drain makes the connection take no new requests; those that nothing has left
// of go elsewhere. The caller holds mu.
func (cn *conn) drain() {
	if cn.draining || cn.dead {
		return
	}
	cn.draining = true
	cn.moveQueue(&callError{err: errExhausted, refused: true})
	if len(cn.streams) == 0 {
		cn.die(errDrained)
	}
	cn.l.grow()
}

// moveQueue gives the calls that were not opened to other connections. The
// caller holds mu.
func (cn *conn) moveQueue(err *callError) {
	queue := cn.queue
	cn.queue, cn.queued = nil, 0
	for _, c := range queue {
		if c.state == stateWaiting && c.conn == cn {
			cn.l.again(c, err, 3)
		}
	}
}

// die ends the connection and decides what was on it. The caller holds mu.
func (cn *conn) die(why error) {
	if cn.dead {
		return
	}
	cn.dead, cn.draining = true, true
	cn.l.conns = slices.DeleteFunc(cn.l.conns, func(other *conn) bool { return other == cn })
	close(cn.gone)
	if cn.watchdog != nil {
		cn.watchdog.Stop()
	}
	_ = cn.raw.Close()
	streams := cn.streams
	cn.streams, cn.partial = nil, nil
	for _, c := range streams {
		err := &callError{err: why, left: true, reason: cn.reason}
		if c.state == stateOpen {
			// Without its end the peer cannot have processed it.
			cn.l.again(c, &callError{err: why, down: true, reason: cn.reason}, 1)
			continue
		}
		cn.l.finish(c, err)
	}
	cn.moveQueue(&callError{err: why, down: true, reason: cn.reason})
	cn.l.grow()
}

// fail is die for the reader and the writer.
func (cn *conn) fail(why error) {
	cn.l.mu.Lock()
	cn.die(why)
	cn.l.mu.Unlock()
	cn.l.changed()
}

// beat is how often watch looks.
func (cn *conn) beat() time.Duration {
	t := cn.l.timing
	return min(t.quiet, t.idlePing, t.pingTimeout, t.idle) / 2
}

// watch finds out that nobody is at the other end any more, and closes what
// nobody uses.
func (cn *conn) watch() {
	l := cn.l
	l.mu.Lock()
	if cn.dead {
		l.mu.Unlock()
		return
	}
	now, heard := time.Now(), time.Unix(0, cn.raw.last.Load())
	busy := len(cn.streams) > 0
	if heard.After(cn.pingedAt) {
		cn.pingedAt = time.Time{}
	}
	patience := l.timing.idlePing
	if busy {
		patience = l.timing.quiet
	}
	switch {
	case !cn.pingedAt.IsZero() && now.Sub(cn.pingedAt) >= l.timing.pingTimeout:
		cn.die(errSilent)
	case !busy && cn.queued == 0 && now.Sub(cn.idleAt) >= l.timing.idle:
		cn.die(errIdle)
	case cn.pingedAt.IsZero() && now.Sub(heard) >= patience:
		cn.pingedAt = now
		cn.control = append(cn.control, 0, 0, 8, byte(http2.FramePing), 0, 0, 0, 0, 0, 'g', 'r', 'o', 'u', 'n', 'd', 'w', 'k')
		cn.poke()
	}
	if !cn.dead {
		cn.watchdog.Reset(cn.beat())
	}
	dead := cn.dead
	l.mu.Unlock()
	if dead {
		l.changed()
	}
}

// resetStream tells the peer that an answer is not awaited any more. The caller
// holds mu and wakes the writer.
func (cn *conn) resetStream(id uint32, code http2.ErrCode) {
	cn.control = append(cn.control, 0, 0, 4, byte(http2.FrameRSTStream), 0)
	cn.control = binary.BigEndian.AppendUint32(cn.control, id)
	cn.control = binary.BigEndian.AppendUint32(cn.control, uint32(code))
}

// op is one frame or pair of frames to write.
type op struct {
	c        *call
	id       uint32
	open     bool // with the headers
	from, to int  // of the body
}

// writer is what belongs to the writing goroutine.
type writer struct {
	buf     []byte
	ops     []op
	control []byte

	encoder  *hpack.Encoder
	fields   appender
	allKnown bool    // the last profile consisted of references to the table only
	last     profile // that profile
	known    []byte  // those references
	pseudo   []hpack.HeaderField

	// Of the last request: what comes twice in a row is shared by many.
	expiration, collapseID string
}

type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func (w *writer) init(authority string) {
	w.encoder = hpack.NewEncoder(&w.fields)
	w.pseudo = []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: authority}}
}

// write is the writing goroutine: it puts all that is there at the moment into
// one write.
func (cn *conn) write() {
	w := &cn.w
	for {
		select {
		case <-cn.wake:
		case <-cn.gone:
			return
		}
		for {
			cn.l.mu.Lock()
			table := cn.plan()
			cn.l.mu.Unlock()
			if table != nil {
				w.encoder.SetMaxDynamicTableSizeLimit(*table)
				w.allKnown = false
			}
			if len(w.ops) == 0 && len(w.control) == 0 {
				break
			}
			w.buf = append(w.buf[:0], w.control...)
			for i := range w.ops {
				w.frame(&w.ops[i])
			}
			clear(w.ops)
			_ = cn.raw.SetWriteDeadline(time.Now().Add(cn.l.timing.write))
			if _, err := cn.tls.Write(w.buf); err != nil {
				cn.fail(err)
				return
			}
			if cap(w.buf) > 256<<10 {
				w.buf = nil
			}
		}
	}
}

// plan decides what goes out next. The caller holds mu.
func (cn *conn) plan() (table *uint32) {
	w := &cn.w
	w.ops = w.ops[:0]
	w.control, cn.control = cn.control, w.control[:0]
	table, cn.table = cn.table, nil
	if cn.dead {
		return table
	}
	keep := cn.partial[:0]
	for _, c := range cn.partial {
		cn.advance(c, false)
		if c.state == stateOpen {
			keep = append(keep, c)
		}
	}
	clear(cn.partial[len(keep):])
	cn.partial = keep
	taken := 0
	for _, c := range cn.queue {
		if c.state == stateWaiting && c.conn == cn {
			if len(cn.streams) >= cn.limit || cn.window <= 0 {
				break
			}
			if cn.nextID > cn.l.lastID {
				cn.queue = slices.Delete(cn.queue, 0, taken)
				cn.drain() // the ids of this connection are used up
				return table
			}
			cn.queued--
			c.streamID, c.window, c.state = cn.nextID, cn.initial, stateOpen
			cn.nextID += 2
			cn.streams[c.streamID] = c
			cn.advance(c, true)
			if c.state == stateOpen {
				cn.partial = append(cn.partial, c)
			}
		}
		taken++
	}
	if taken == len(cn.queue) {
		clear(cn.queue)
		cn.queue = cn.queue[:0]
	} else {
		cn.queue = slices.Delete(cn.queue, 0, taken)
	}
	return table
}

// advance plans as much of a call as the windows let through. The caller holds
// mu.
func (cn *conn) advance(c *call, open bool) {
	for {
		n := min(int64(len(c.body)-c.off), cn.window, c.window, int64(cn.maxFrame))
		if n <= 0 && !open {
			return
		}
		n = max(n, 0)
		cn.w.ops = append(cn.w.ops, op{c: c, id: c.streamID, open: open, from: c.off, to: c.off + int(n)})
		open = false
		c.off += int(n)
		c.window -= n
		cn.window -= n
		if c.off == len(c.body) {
			c.state = stateSent
			return
		}
	}
}

// frame appends the frames of an op to buf.
func (w *writer) frame(o *op) {
	end := o.to == len(o.c.body)
	if o.open {
		start := len(w.buf)
		w.buf = append(w.buf, 0, 0, 0, byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders))
		w.buf = binary.BigEndian.AppendUint32(w.buf, o.id)
		w.headers(o.c)
		n := len(w.buf) - start - frameHeader // below the smallest possible MAX_FRAME_SIZE: all parts are bounded
		w.buf[start], w.buf[start+1], w.buf[start+2] = byte(n>>16), byte(n>>8), byte(n)
		if end && o.from == o.to {
			w.buf[start+4] |= byte(http2.FlagHeadersEndStream)
			return
		}
		if o.from == o.to {
			return
		}
	}
	n := o.to - o.from
	flags := byte(0)
	if end {
		flags = byte(http2.FlagDataEndStream)
	}
	w.buf = append(w.buf, byte(n>>16), byte(n>>8), byte(n), byte(http2.FrameData), flags)
	w.buf = binary.BigEndian.AppendUint32(w.buf, o.id)
	w.buf = append(w.buf, o.c.body[o.from:o.to]...)
}

// headers appends a header block. What every request has of its own is written
// as it is, and marked as not to be kept: it would push the rest out of the
// peer's table, and a device token is nothing for anybody's table.
func (w *writer) headers(c *call) {
	shared := c.profile
	if c.expiration != w.expiration {
		shared.expiration = ""
	}
	if c.collapseID != w.collapseID {
		shared.collapseID = ""
	}
	w.expiration, w.collapseID = c.expiration, c.collapseID
	// Pseudo-header fields come first; :path is number 4 of the static table.
	w.buf = append(w.buf, 0x14)
	w.buf = appendText(w.buf, c.path)
	if w.allKnown && w.last == shared {
		w.buf = append(w.buf, w.known...)
	} else {
		w.fields.b = w.fields.b[:0]
		w.allKnown = true
		for _, f := range w.pseudo {
			w.field(f)
		}
		w.field(hpack.HeaderField{Name: "content-type", Value: "application/json"})
		if shared.authorization != "" {
			w.field(hpack.HeaderField{Name: "authorization", Value: shared.authorization})
		}
		w.field(hpack.HeaderField{Name: "apns-topic", Value: shared.topic})
		w.field(hpack.HeaderField{Name: "apns-push-type", Value: shared.pushType})
		w.field(hpack.HeaderField{Name: "apns-priority", Value: shared.priority})
		if shared.expiration != "" {
			w.field(hpack.HeaderField{Name: "apns-expiration", Value: shared.expiration})
		}
		if shared.collapseID != "" {
			w.field(hpack.HeaderField{Name: "apns-collapse-id", Value: shared.collapseID})
		}
		w.last = shared
		w.known = append(w.known[:0], w.fields.b...)
		w.buf = append(w.buf, w.fields.b...)
	}
	if shared.expiration != c.expiration {
		w.single("apns-expiration", c.expiration)
	}
	if shared.collapseID != c.collapseID {
		w.single("apns-collapse-id", c.collapseID)
	}
	if c.id != "" {
		w.single("apns-id", c.id)
	}
}

// single appends a field that is not to be kept in the peer's table.
func (w *writer) single(name, value string) {
	w.buf = append(w.buf, 0x10) // never indexed, with a name of its own (RFC 7541, 6.2.3)
	w.buf = appendText(w.buf, name)
	w.buf = appendText(w.buf, value)
}

// field encodes a field that may be kept in the peer's table.
func (w *writer) field(f hpack.HeaderField) {
	before := len(w.fields.b)
	_ = w.encoder.WriteField(f) // an appender does not fail
	if w.fields.b[before]&0x80 == 0 {
		w.allKnown = false
	}
}

// appendText appends a string literal without Huffman coding (RFC 7541, 5.2):
// a few bytes more on the line, and much less work at both ends.
func appendText(b []byte, s string) []byte {
	if n := len(s); n < 127 {
		b = append(b, byte(n))
	} else {
		b = append(b, 127)
		for n -= 127; ; n >>= 7 {
			if n < 128 {
				b = append(b, byte(n))
				break
			}
			b = append(b, byte(n)|0x80)
		}
	}
	return append(b, s...)
}

// reader is what belongs to the reading goroutine.
type reader struct {
	framer  *http2.Framer
	decoder *hpack.Decoder

	// The header block in hand.
	stream     uint32
	end        bool
	status     int
	apnsID     string
	retryAfter string

	consumed int // of the connection's window, since the last WINDOW_UPDATE
}

func (r *reader) init(cn *conn) {
	r.framer = http2.NewFramer(io.Discard, cn.br)
	r.framer.SetReuseFrames()
	r.framer.SetMaxReadFrameSize(initialFrame)
	r.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			r.status, _ = strconv.Atoi(f.Value)
		case "apns-id":
			r.apnsID = f.Value
		case "retry-after":
			r.retryAfter = f.Value
		}
	})
	r.decoder.SetMaxStringLength(initialFrame)
}

// read is the reading goroutine.
func (cn *conn) read() {
	for {
		f, err := cn.r.framer.ReadFrame()
		if err == nil {
			err = cn.onFrame(f)
		}
		var stream http2.StreamError
		if errors.As(err, &stream) {
			cn.onReset(stream.StreamID, stream.Code, true)
			continue
		}
		if err != nil {
			cn.fail(err)
			return
		}
	}
}

func (cn *conn) onFrame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		r := &cn.r
		r.stream, r.end = f.StreamID, f.StreamEnded()
		r.status, r.apnsID, r.retryAfter = 0, "", ""
		return cn.onFragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return cn.onFragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		cn.onData(f)
	case *http2.RSTStreamFrame:
		cn.onReset(f.StreamID, f.ErrCode, false)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		cn.l.mu.Lock()
		err := cn.onSettings(f)
		cn.l.settle()
		cn.l.mu.Unlock()
		cn.l.changed()
		return err
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		cn.l.mu.Lock()
		cn.control = append(cn.control, 0, 0, 8, byte(http2.FramePing), byte(http2.FlagPingAck), 0, 0, 0, 0)
		cn.control = append(cn.control, f.Data[:]...)
		cn.l.mu.Unlock()
		cn.poke()
	case *http2.WindowUpdateFrame:
		return cn.onWindow(f.StreamID, int64(f.Increment))
	case *http2.GoAwayFrame:
		cn.onGoAway(f)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

// onFragment takes a part of a header block. All blocks are decoded, whether or
// not anybody waits for them: the table depends on each.
func (cn *conn) onFragment(fragment []byte, last bool) error {
	r := &cn.r
	if _, err := r.decoder.Write(fragment); err != nil {
		return fmt.Errorf("decode headers: %w", err)
	}
	if !last {
		return nil
	}
	if err := r.decoder.Close(); err != nil {
		return fmt.Errorf("decode headers: %w", err)
	}
	if r.status >= 100 && r.status < 200 && !r.end {
		return nil
	}
	cn.l.mu.Lock()
	defer cn.l.mu.Unlock()
	c := cn.streams[r.stream]
	if c == nil {
		return nil
	}
	if r.status != 0 {
		c.status, c.apnsID, c.retryAfter = r.status, r.apnsID, r.retryAfter
	}
	if r.end {
		cn.complete(c)
	}
	return nil
}

// complete decides a call by its answer. The caller holds mu.
func (cn *conn) complete(c *call) {
	open := c.state == stateOpen
	cn.drop(c)
	if open {
		// Answered before it was sent in full: the rest is not wanted.
		cn.resetStream(c.streamID, http2.ErrCodeCancel)
		cn.poke()
	}
	if c.status == 200 && !cn.l.proven {
		// The peer may be about to allow more on this connection.
		cn.l.proven, cn.l.grownAt = true, time.Now()
	}
	cn.l.finish(c, nil)
	if len(cn.l.waiting) > 0 {
		cn.l.settle()
		cn.l.grow()
	}
}

func (cn *conn) onData(f *http2.DataFrame) {
	r := &cn.r
	size := int(f.Length) // padding counts as well
	cn.l.mu.Lock()
	defer cn.l.mu.Unlock()
	if r.consumed += size; r.consumed >= initialWindow/2 {
		cn.control = append(cn.control, 0, 0, 4, byte(http2.FrameWindowUpdate), 0, 0, 0, 0, 0)
		cn.control = binary.BigEndian.AppendUint32(cn.control, uint32(r.consumed))
		r.consumed = 0
		cn.poke()
	}
	c := cn.streams[f.StreamID]
	if c == nil {
		return
	}
	c.answer = append(c.answer, f.Data()...)
	switch {
	case f.StreamEnded():
		cn.complete(c)
	case len(c.answer) > maxBody:
		cn.resetStream(f.StreamID, http2.ErrCodeCancel)
		cn.poke()
		if c.state == stateOpen {
			cn.partial = slices.DeleteFunc(cn.partial, func(other *call) bool { return other == c })
			c.state = stateSent
		}
		cn.complete(c)
	}
}

// onReset is for a stream that ends without an answer. ours says that we found
// fault with what the peer sent on it.
func (cn *conn) onReset(id uint32, code http2.ErrCode, ours bool) {
	cn.l.mu.Lock()
	defer cn.l.mu.Unlock()
	c := cn.streams[id]
	if c == nil {
		return
	}
	left := c.state == stateSent
	cn.drop(c)
	if ours {
		cn.resetStream(id, code)
		cn.poke()
	}
	err := &callError{err: http2.StreamError{StreamID: id, Code: code}, left: left}
	switch {
	case code == http2.ErrCodeRefusedStream && !ours:
		err.left, err.refused = false, true
		cn.l.again(c, err, 1)
	default:
		cn.l.finish(c, err)
	}
	cn.l.settle()
}

// onSettings takes the peer's settings. The caller holds mu, or nobody else
// knows the connection yet.
func (cn *conn) onSettings(f *http2.SettingsFrame) error {
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			cn.limit = int(min(s.Val, unlimitedStreams))
		case http2.SettingInitialWindowSize:
			change := int64(s.Val) - cn.initial
			cn.initial = int64(s.Val)
			for _, c := range cn.partial {
				c.window += change
			}
		case http2.SettingMaxFrameSize:
			cn.maxFrame = int(s.Val)
		case http2.SettingHeaderTableSize:
			cn.table = &s.Val
		}
		return nil
	})
	cn.control = append(cn.control, 0, 0, 0, byte(http2.FrameSettings), byte(http2.FlagSettingsAck), 0, 0, 0, 0)
	cn.poke()
	return err
}

func (cn *conn) onWindow(id uint32, increment int64) error {
	cn.l.mu.Lock()
	defer cn.l.mu.Unlock()
	if id == 0 {
		if cn.window += increment; cn.window > math.MaxInt32 {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else if c := cn.streams[id]; c != nil {
		c.window += increment
	}
	cn.poke()
	return nil
}

// onGoAway lets the requests that the peer still answers finish, and gives the
// others to another connection.
func (cn *conn) onGoAway(f *http2.GoAwayFrame) {
	var debug struct{ Reason string }
	_ = json.Unmarshal(f.DebugData(), &debug)
	cn.l.mu.Lock()
	if debug.Reason != "" {
		cn.reason = debug.Reason
	}
	var refused []*call
	for id, c := range cn.streams {
		if id > f.LastStreamID {
			refused = append(refused, c)
		}
	}
	cn.draining = true
	cn.moveQueue(&callError{err: errExhausted, refused: true, reason: cn.reason})
	for _, c := range refused {
		cn.drop(c)
		cn.l.again(c, &callError{err: errDrained, refused: true, reason: cn.reason}, 1)
	}
	if len(cn.streams) == 0 {
		cn.die(errDrained)
	}
	cn.l.grow()
	cn.l.mu.Unlock()
	cn.l.changed()
}
