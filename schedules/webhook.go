package schedules

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

const (
	webhookTimeout = 30 * time.Second
	// shownAnswer is how much of an answer is kept, in bytes.
	shownAnswer = 2000
	maxBody     = 100 << 10
	// maxRetryAfter is the longest wait that the other side can ask for.
	maxRetryAfter = 15 * time.Minute
)

// HeaderSignature is t=UNIX,v1=HEX: the HMAC-SHA256, under the schedule's secret, of
// the time, a dot and the body. It is the form that our own webhooks take.
const HeaderSignature = "X-Groundwork-Signature"

// Headers by which the other side tells the runs apart. The run is the same in all
// attempts at it.
const (
	HeaderSchedule = "X-Groundwork-Schedule"
	HeaderRun      = "X-Groundwork-Run"
)

// webhookAction posts to a web address.
type webhookAction struct{}

func (webhookAction) keys() []Key {
	return []Key{
		{"url", "the address that is called, with https://; required"},
		{"body", "what is sent, as JSON; {} when it is left out"},
	}
}

func (webhookAction) read(r *Runner, raw string) (to *url.URL, body []byte, err error) {
	p := readPayload(raw, webhookAction{}.keys())
	address := p.text("url")
	body = []byte("{}")
	if p.has("body") {
		var compact bytes.Buffer
		if json.Compact(&compact, p.values["body"]) == nil { // it was read before
			body = compact.Bytes()
		}
	}
	if len(body) > maxBody {
		p.fail("The body is longer than 100 kB.")
	}
	if p.err != nil {
		return nil, nil, p.err
	}
	if address == "" {
		return nil, nil, sentence(`Say which address is called, such as {"url": "https://example.com/hook"}.`)
	}
	to, err = url.Parse(address)
	if err != nil || to.Hostname() == "" || to.Opaque != "" || to.Scheme != "https" && to.Scheme != "http" {
		return nil, nil, sentence("%q is not a web address such as https://example.com/hook.", address)
	}
	port := to.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[to.Scheme]
	}
	if to.User != nil {
		return nil, nil, sentence("A user name or password does not belong in the address: the call is signed with the secret.")
	}
	// Before the scheme: https alone would not help an address that is refused.
	if r.o.CheckHost != nil {
		if err := r.o.CheckHost(to.Hostname(), port); err != nil {
			return nil, nil, sentence("The address %s %v. Such addresses are not called, unless WEBHOOK_PRIVATE_HOSTS has them.", to.Host, err)
		}
	}
	if to.Scheme == "http" && (r.o.Private == nil || !r.o.Private(to.Hostname(), port)) {
		return nil, nil, sentence("The address must begin with https://: without encryption the call can be read on its way.")
	}
	to.Fragment = ""
	return to, body, nil
}

func (a webhookAction) check(_ core.App, s *Schedule, c checking) error {
	_, _, err := a.read(c.runner, s.GetString("payload"))
	return err
}

// webhookClient calls addresses of strangers.
type webhookClient struct{ client *http.Client }

func newWebhookClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *webhookClient {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // it would look the name up behind the dialer's back
	t.DisableKeepAlives = true
	t.MaxResponseHeaderBytes = 16 << 10
	if dial != nil {
		t.DialContext = dial
	}
	return &webhookClient{&http.Client{Transport: t, Timeout: webhookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Sign is the signature of a body at a time.
func Sign(secret string, body []byte, at time.Time) string {
	t := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(t + "."))
	h.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(h.Sum(nil))
}

func (a webhookAction) run(ctx context.Context, c *call) (string, error) {
	r := c.runner
	to, body, err := a.read(r, c.schedule.GetString("payload"))
	if err != nil {
		return "", err
	}
	secret, err := openSecret(r.o.Box, c.schedule.Id, c.schedule.GetString("secret"))
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return "", sentence("The address %s cannot be called.", to.Host)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Groundwork")
	req.Header.Set(HeaderSchedule, c.schedule.Id)
	req.Header.Set(HeaderRun, c.run)
	req.Header.Set(HeaderSignature, Sign(secret, body, r.o.Now()))
	resp, err := r.http.client.Do(req)
	if err != nil {
		return "", unanswered(to.Host, err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, shownAnswer+1)) // what came of it is shown
	answer := strings.TrimSpace(string(raw))
	if len(raw) > shownAnswer {
		answer = strings.ToValidUTF8(string(raw[:shownAnswer]), "") + "…"
	}
	// The secret is in no answer, unless somebody sends it back.
	output := strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf("%s answered %s\n%s", to.Host, resp.Status, answer)), secret, "[secret]")
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return output, nil
	case code >= 300 && code < 400:
		return output, sentence("%s answered %s: it sends the call elsewhere, and that is not followed. Put the new address into the payload.", to.Host, resp.Status)
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		e := &retryError{Sentence: Sentence(fmt.Sprintf("%s answered %s.", to.Host, resp.Status))}
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
			e.after = min(time.Duration(seconds)*time.Second, maxRetryAfter)
		}
		return output, e
	default:
		return output, sentence("%s answered %s.", to.Host, resp.Status)
	}
}

// unanswered says why there was no answer. The error of the client has the whole
// address in it, which can hold what is nobody's business.
func unanswered(host string, err error) error {
	var dns *net.DNSError
	var refused interface{ Private() bool }
	switch {
	case errors.As(err, &refused) && refused.Private():
		return sentence("%s leads into a private network. Such addresses are not called, unless WEBHOOK_PRIVATE_HOSTS has them.", host)
	case errors.As(err, &dns):
		return retryLater("The name %s cannot be found.", host)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), isTimeout(err):
		return retryLater("%s did not answer within %d seconds.", host, int(webhookTimeout.Seconds()))
	default:
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return retryLater("%s cannot be reached: %v.", host, err)
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
