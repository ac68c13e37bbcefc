package ratelimit

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of draft-ietf-httpapi-ratelimit-headers-10, as structured fields:
//
//	RateLimit-Policy: "Guests";q=300;w=10
//	RateLimit: "Guests";r=299;t=10
//
// r is what is left, t the seconds until more is left than now. They are named as
// Go keeps them, so that setting one needs no rewriting of its name.
const (
	headerLimit  = "Ratelimit"
	headerPolicy = "Ratelimit-Policy"
	headerRetry  = "Retry-After"
)

// prepare makes the parts of the headers that never change.
func (r *Rule) prepare() {
	name := r.Name
	for _, c := range []byte(name) {
		if c < 0x20 || c > 0x7e {
			name = r.ID // a structured-field string is printable ASCII
			break
		}
	}
	r.item = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	r.policy = []string{r.item + ";q=" + strconv.Itoa(r.Limit) + ";w=" + strconv.FormatInt(seconds(r.Length), 10)}
}

// seconds is a time in whole seconds, never too few.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Show puts what a take left into the answer's headers. Several rules make a
// list.
func (r *Rule) Show(h http.Header, t Taken) {
	line := make([]byte, 0, len(r.item)+24)
	line = append(line, r.item...)
	line = append(line, ";r="...)
	line = strconv.AppendInt(line, int64(t.Remaining), 10)
	line = append(line, ";t="...)
	grows := seconds(t.Grows)
	if t.OK { // a step more than the window, in the counter's own way of counting
		grows = min(grows, seconds(r.Length))
	}
	line = strconv.AppendInt(line, grows, 10)
	if h[headerLimit] == nil {
		h[headerLimit], h[headerPolicy] = []string{string(line)}, r.policy[:1:1]
	} else {
		// New ones: the policy is shared by all answers.
		h[headerLimit] = []string{h[headerLimit][0] + ", " + string(line)}
		h[headerPolicy] = []string{h[headerPolicy][0] + ", " + r.policy[0]}
	}
	if !t.OK {
		h[headerRetry] = []string{strconv.FormatInt(max(seconds(t.Grows), 1), 10)}
	}
}

// Refusal is what a person reads who came too often.
func Refusal(wait time.Duration) string {
	n := max(seconds(wait), 1)
	unit := "second"
	switch {
	case n > 2*3600:
		n, unit = (n+3599)/3600, "hour"
	case n > 120:
		n, unit = (n+59)/60, "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return "Too many requests. Try again in " + strconv.FormatInt(n, 10) + " " + unit + "."
}
