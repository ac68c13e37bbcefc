package requestlog

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"regexp"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// Header is the name of the request id's header, in requests and answers.
const Header = "X-Request-Id"

const (
	keyEvent  = "groundwork.requestId"
	keyRecord = "@groundworkRequestId" // no field can have this name
)

// accepted is what a caller's own id may look like. Anything else is replaced:
// it ends up in logs and headers.
var accepted = regexp.MustCompile(`^[A-Za-z0-9._-]{8,128}$`)

var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// New returns a fresh id: 48 bits of time, so that ids sort, and 80 random
// bits, so that they tell nothing about how many there are.
func New() string {
	var b [16]byte
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(b[:6], ms[2:])
	_, _ = rand.Read(b[6:]) // never fails: it ends the process instead
	return encoding.EncodeToString(b[:])
}

// Assign gives a request its id, the caller's own if that is well-formed, and
// puts it into the answer.
func Assign(e *core.RequestEvent) string {
	id := strings.TrimSpace(e.Request.Header.Get(Header))
	if !accepted.MatchString(id) {
		id = New()
	}
	e.Set(keyEvent, id)
	e.Response.Header().Set(Header, id)
	return id
}

// ID returns the id of a request; empty before [Assign]. The requests inside a
// batch answer with that of the batch.
func ID(e *core.RequestEvent) string {
	if id, ok := e.Get(keyEvent).(string); ok {
		return id
	}
	if id := e.Response.Header().Get(Header); accepted.MatchString(id) {
		return id
	}
	return ""
}

// SetRecordRequestID lets a record carry the id of the request that saves it:
// the hooks of a record's save do not see the request. It is not stored.
func SetRecordRequestID(record *core.Record, id string) {
	if id != "" {
		record.SetRaw(keyRecord, id)
	}
}

// RecordRequestID returns the id that the record carries; empty when no request
// saves it.
func RecordRequestID(record *core.Record) string {
	id, _ := record.GetRaw(keyRecord).(string)
	return id
}
