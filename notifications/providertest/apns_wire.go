package providertest

import (
	"bufio"
	"bytes"
	"cmp"
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

// apnsConn is one connection to an [APNs] double. Answers are gathered while
// there is more to read, and go out in one write.
type apnsConn struct {
	a      *APNs
	id     int64
	raw    net.Conn
	tls    *tls.Conn
	br     *bufio.Reader
	framer *http2.Framer
	hole   atomic.Bool

	// The reader's own.
	decoder   *hpack.Decoder
	block     *apnsStream // whose header block is being read; nil: nobody wants it
	blockID   uint32
	blockEnd  bool
	certified bool

	mu       sync.Mutex
	out      []byte
	streams  map[uint32]*apnsStream // open: not answered yet
	lastID   uint32
	received int64    // body since the last WINDOW_UPDATE
	enforced uint32   // the stream limit, once the client has seen it
	unacked  []uint32 // limits that it has not confirmed; the order of SETTINGS
	accepted bool
	goneID   uint32 // streams above it are ignored, after a GOAWAY
	late     []apnsLate
	timer    *time.Timer
	window   int64 // how much body the client takes
	blocked  []apnsData
	closed   bool
}

// apnsLate is an answer that is due later; all take equally long, so that they
// are in order.
type apnsLate struct {
	due    time.Time
	stream *apnsStream
	script APNsScript
}

type apnsData struct {
	id   uint32
	body []byte
}

// apnsStream is one push.
type apnsStream struct {
	id uint32

	method, path, authorization, topic, pushType, priority, expiration, collapseID, apnsID string
	duplicate                                                                              bool
	fields                                                                                 []hpack.HeaderField
	body                                                                                   []byte

	token string
	fault APNsScript // what is wrong with it; the zero value: nothing
	whole bool       // it is there in full

	releases int // [APNs.Release] calls before it was counted
}

func (r *apnsStream) request(c *apnsConn) *APNsRequest {
	out := &APNsRequest{Token: r.token, Header: make(map[string]string, len(r.fields)), Payload: bytes.Clone(r.body), Connection: c.id, At: time.Now()}
	for _, f := range r.fields {
		out.Header[f.Name] = f.Value
	}
	return out
}

func newAPNsConn(a *APNs, raw net.Conn, id int64, streams uint32) *apnsConn {
	c := &apnsConn{a: a, id: id, raw: raw, tls: tls.Server(raw, a.config), streams: map[uint32]*apnsStream{}, enforced: math.MaxUint32,
		goneID: math.MaxUint32, window: 65535}
	c.br = bufio.NewReaderSize(c.tls, 32<<10)
	c.framer = http2.NewFramer(io.Discard, c.br)
	c.framer.SetReuseFrames()
	c.decoder = hpack.NewDecoder(4096, c.onField)
	c.settings(streams)
	return c
}

// settings queues the first frame.
func (c *apnsConn) settings(streams uint32) {
	window := c.a.opts.Window
	if window == 0 {
		window = 1 << 20
	}
	values := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: streams}, {ID: http2.SettingInitialWindowSize, Val: window}}
	if n := c.a.opts.HeaderTable; n != 0 {
		values = append(values, http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(max(n, 0))})
		c.decoder.SetAllowedMaxDynamicTableSize(uint32(max(n, 0)))
	}
	c.frameHeader(6*len(values), http2.FrameSettings, 0, 0)
	for _, v := range values {
		c.out = binary.BigEndian.AppendUint16(c.out, uint16(v.ID))
		c.out = binary.BigEndian.AppendUint32(c.out, v.Val)
	}
	c.unacked = append(c.unacked, streams)
	if c.a.opts.Window == 0 {
		c.windowUpdate(0, 1<<30)
	}
}

func (c *apnsConn) frameHeader(n int, kind http2.FrameType, flags http2.Flags, id uint32) {
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	c.out = binary.BigEndian.AppendUint32(c.out, id)
}

func (c *apnsConn) windowUpdate(id uint32, n int) {
	c.frameHeader(4, http2.FrameWindowUpdate, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(n))
}

// announce changes the stream limit. A lower one holds once the client has
// confirmed it, a higher one at once.
func (c *apnsConn) announce(n uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announceLocked(n)
	c.flush()
}

func (c *apnsConn) announceLocked(n uint32) {
	c.frameHeader(6, http2.FrameSettings, 0, 0)
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(http2.SettingMaxConcurrentStreams))
	c.out = binary.BigEndian.AppendUint32(c.out, n)
	c.unacked = append(c.unacked, n)
}

// cut ends the connection without a farewell.
func (c *apnsConn) cut() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.raw.Close()
}

// serve is the connection's goroutine.
func (c *apnsConn) serve() {
	defer func() {
		c.mu.Lock()
		c.closed = true
		if c.timer != nil {
			c.timer.Stop()
		}
		unanswered := 0
		for _, r := range c.streams {
			if r.whole {
				unanswered++
			}
		}
		c.mu.Unlock()
		_ = c.raw.Close()
		c.a.forget(c, unanswered)
	}()
	if err := c.tls.Handshake(); err != nil {
		return
	}
	state := c.tls.ConnectionState()
	c.certified = len(state.PeerCertificates) > 0
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.br, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	c.mu.Lock()
	c.flush()
	c.mu.Unlock()
	for {
		f, err := c.framer.ReadFrame()
		var stream http2.StreamError
		if errors.As(err, &stream) {
			err = nil
		}
		if err == nil && !c.hole.Load() {
			err = c.onFrame(f)
		}
		if err != nil {
			return
		}
		if c.br.Buffered() == 0 {
			c.mu.Lock()
			c.flush()
			done := c.goneID != math.MaxUint32 && len(c.streams) == 0
			c.mu.Unlock()
			if done {
				c.hangUp()
				return
			}
		}
	}
}

// hangUp ends the connection so that what was said arrives.
func (c *apnsConn) hangUp() {
	_ = c.tls.CloseWrite()
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		_ = tcp.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(io.Discard, tcp)
	}
}

// flush writes what was gathered. The caller holds mu.
func (c *apnsConn) flush() {
	if len(c.out) == 0 || c.hole.Load() || c.closed {
		return
	}
	if _, err := c.tls.Write(c.out); err != nil {
		_ = c.raw.Close()
	}
	c.out = c.out[:0]
}

func (c *apnsConn) onFrame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.onHeaders(f)
	case *http2.ContinuationFrame:
		return c.onFragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		return c.onData(f)
	case *http2.SettingsFrame:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !f.IsAck() {
			c.frameHeader(0, http2.FrameSettings, http2.FlagSettingsAck, 0)
			return nil
		}
		if len(c.unacked) > 0 {
			c.enforced, c.unacked = c.unacked[0], c.unacked[1:]
			if n := c.a.opts.HeaderTable; n != 0 {
				c.decoder.SetMaxDynamicTableSize(uint32(max(n, 0))) // whether or not the client does so
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.mu.Lock()
			c.frameHeader(8, http2.FramePing, http2.FlagPingAck, 0)
			c.out = append(c.out, f.Data[:]...)
			c.mu.Unlock()
			c.a.mu.Lock()
			c.a.pings++
			c.a.mu.Unlock()
		}
	case *http2.RSTStreamFrame:
		c.mu.Lock()
		delete(c.streams, f.StreamID)
		c.mu.Unlock()
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.mu.Lock()
			c.window += int64(f.Increment)
			c.sendBlocked()
			c.mu.Unlock()
		}
	case *http2.GoAwayFrame:
		return io.EOF
	}
	return nil
}

func (c *apnsConn) onHeaders(f *http2.HeadersFrame) error {
	c.blockID, c.blockEnd, c.block = f.StreamID, f.StreamEnded(), nil
	c.mu.Lock()
	if f.StreamID%2 == 0 || f.StreamID <= c.lastID {
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeProtocol) // pushes have no trailers
	}
	c.lastID = f.StreamID
	limit := c.enforced
	for _, n := range c.unacked {
		limit = max(limit, n)
	}
	switch {
	case f.StreamID > c.goneID:
	case uint32(len(c.streams)) >= limit:
		c.reset(f.StreamID, http2.ErrCodeRefusedStream)
		c.a.mu.Lock()
		c.a.refused++
		c.a.mu.Unlock()
	default:
		c.block = &apnsStream{id: f.StreamID}
		c.streams[f.StreamID] = c.block
	}
	open := len(c.streams)
	c.mu.Unlock()
	if c.block != nil {
		c.a.mu.Lock()
		c.a.peakStreams = max(c.a.peakStreams, open)
		c.a.mu.Unlock()
	}
	return c.onFragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

func (c *apnsConn) onFragment(fragment []byte, last bool) error {
	if _, err := c.decoder.Write(fragment); err != nil {
		return err
	}
	if !last {
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return err
	}
	if c.block != nil && c.blockEnd {
		c.handle(c.block)
	}
	return nil
}

func (c *apnsConn) onField(f hpack.HeaderField) {
	r := c.block
	if r == nil {
		return
	}
	set := func(to *string) {
		r.duplicate = r.duplicate || *to != ""
		*to = f.Value
	}
	switch f.Name {
	case ":method":
		set(&r.method)
	case ":path":
		set(&r.path)
	case "authorization":
		set(&r.authorization)
	case "apns-topic":
		set(&r.topic)
	case "apns-push-type":
		set(&r.pushType)
	case "apns-priority":
		set(&r.priority)
	case "apns-expiration":
		set(&r.expiration)
	case "apns-collapse-id":
		set(&r.collapseID)
	case "apns-id":
		set(&r.apnsID)
	}
	if !c.a.opts.CountOnly {
		r.fields = append(r.fields, f)
	}
}

func (c *apnsConn) onData(f *http2.DataFrame) error {
	c.mu.Lock()
	r := c.streams[f.StreamID]
	switch n := int(f.Length); {
	case c.a.blocked.Load():
	case c.a.opts.Window > 0 && n > 0:
		c.windowUpdate(0, n)
		if r != nil && !f.StreamEnded() {
			c.windowUpdate(f.StreamID, n)
		}
	case n > 0:
		c.windowUpdateLater(n)
	}
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	if len(r.body) < 1<<20 {
		r.body = append(r.body, f.Data()...)
	}
	if f.StreamEnded() {
		c.handle(r)
	}
	return nil
}

// windowUpdateLater keeps the plenty of the connection's window: for the life of
// a double it does not run out, but a long run may come close.
func (c *apnsConn) windowUpdateLater(n int) {
	c.received += int64(n)
	if c.received >= 1<<28 {
		c.windowUpdate(0, int(c.received))
		c.received = 0
	}
}

func (c *apnsConn) reset(id uint32, code http2.ErrCode) {
	c.frameHeader(4, http2.FrameRSTStream, 0, id)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

// handle is for a push that is there in full.
func (c *apnsConn) handle(r *apnsStream) {
	r.whole = true
	r.fault = c.a.judge(r, c.certified)
	script := c.a.take(c, r)
	switch {
	case script.NoAnswer:
	case script.GoAway:
		c.goAway(r.id, cmp.Or(script.Reason, "Shutdown"))
	case script.Drop:
		c.mu.Lock()
		c.flush() // what was answered before
		c.mu.Unlock()
		c.cut()
	case script.Hold:
		c.a.hold(r, func() { c.answerNow(r, script) })
	case script.Delay > 0:
		time.AfterFunc(script.Delay, func() { c.answerNow(r, script) })
	case c.a.opts.Latency > 0:
		c.mu.Lock()
		c.late = append(c.late, apnsLate{time.Now().Add(c.a.opts.Latency), r, script})
		if c.timer == nil {
			c.timer = time.AfterFunc(c.a.opts.Latency, c.answerLate)
		} else if len(c.late) == 1 {
			c.timer.Reset(c.a.opts.Latency)
		}
		c.mu.Unlock()
	default:
		c.mu.Lock()
		c.answer(r, script)
		c.mu.Unlock()
	}
}

func (c *apnsConn) answerNow(r *apnsStream, script APNsScript) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer(r, script)
	c.flush()
	c.endIfDone()
}

// endIfDone wakes the reader of a connection that has said farewell and has
// nothing left to answer. The caller holds mu.
func (c *apnsConn) endIfDone() {
	if c.goneID != math.MaxUint32 && len(c.streams) == 0 {
		_ = c.tls.CloseWrite()
	}
}

func (c *apnsConn) answerLate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, n := time.Now(), 0
	for n < len(c.late) && !c.late[n].due.After(now) {
		c.answer(c.late[n].stream, c.late[n].script)
		n++
	}
	c.late = slices.Delete(c.late, 0, n)
	c.flush()
	if len(c.late) > 0 && !c.closed {
		c.timer.Reset(time.Until(c.late[0].due))
	}
	c.endIfDone()
}

// answer queues an answer. The caller holds mu.
func (c *apnsConn) answer(r *apnsStream, script APNsScript) {
	if c.streams[r.id] != r {
		return // the client does not want it any more
	}
	delete(c.streams, r.id)
	if script.Reset {
		c.reset(r.id, script.ResetCode)
		return
	}
	var body []byte
	switch {
	case script.Body != "":
		body = []byte(script.Body)
	case script.Reason != "":
		content := map[string]any{"reason": script.Reason}
		if !script.Timestamp.IsZero() {
			content["timestamp"] = script.Timestamp.UnixMilli()
		}
		body, _ = json.Marshal(content) // texts and numbers do not fail
	}
	start := len(c.out)
	flags := http2.FlagHeadersEndHeaders
	if len(body) == 0 {
		flags |= http2.FlagHeadersEndStream
	}
	c.frameHeader(0, http2.FrameHeaders, flags, r.id)
	if script.Status == 0 || script.Status == 200 {
		c.out = append(c.out, 0x88) // number 8 of the static table
	} else {
		c.out = append(c.out, 0x08)
		c.text(strconv.Itoa(script.Status))
	}
	id := r.apnsID
	if id == "" {
		id = fmt.Sprintf("00000000-0000-8000-8000-%012x", r.id)
	}
	c.field("apns-id", id)
	if script.RetryAfter != "" {
		c.field("retry-after", script.RetryAfter)
	}
	n := len(c.out) - start - 9
	c.out[start], c.out[start+1], c.out[start+2] = byte(n>>16), byte(n>>8), byte(n)
	if len(body) > 0 {
		c.blocked = append(c.blocked, apnsData{r.id, body})
		c.sendBlocked()
	}
	if script.Status == 0 && !c.accepted {
		c.accepted = true
		if n := c.a.opts.StreamsAfterAccept; n > 0 {
			c.announceLocked(n)
		}
	}
}

// sendBlocked queues as much body as the client's window takes. The caller holds
// mu.
func (c *apnsConn) sendBlocked() {
	for len(c.blocked) > 0 && c.window > 0 {
		d := &c.blocked[0]
		n := min(int64(len(d.body)), c.window, 16384)
		flags := http2.Flags(0)
		if n == int64(len(d.body)) {
			flags = http2.FlagDataEndStream
		}
		c.frameHeader(int(n), http2.FrameData, flags, d.id)
		c.out = append(c.out, d.body[:n]...)
		c.window -= n
		if d.body = d.body[n:]; len(d.body) == 0 {
			c.blocked = c.blocked[1:]
		}
	}
}

// field and text write without table and without Huffman coding.
func (c *apnsConn) field(name, value string) {
	c.out = append(c.out, 0x00)
	c.text(name)
	c.text(value)
}

func (c *apnsConn) text(s string) {
	if len(s) > 126 {
		s = s[:126]
	}
	c.out = append(c.out, byte(len(s)))
	c.out = append(c.out, s...)
}

// goAway announces the end. Streams from below on are not processed; zero means
// that all that came so far are.
func (c *apnsConn) goAway(below uint32, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goneID != math.MaxUint32 {
		return
	}
	last := c.lastID
	if below > 0 {
		last = below - 2
		if below < 2 {
			last = 0
		}
		for id := range c.streams {
			if id >= below {
				delete(c.streams, id)
			}
		}
	}
	c.goneID = last
	var debug []byte
	if reason != "" {
		debug, _ = json.Marshal(map[string]string{"reason": reason})
	}
	c.frameHeader(8+len(debug), http2.FrameGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(http2.ErrCodeNo))
	c.out = append(c.out, debug...)
	c.flush()
	c.endIfDone()
}
