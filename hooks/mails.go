package hooks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/mails"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/mailer"

	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// Headers by which a hook that knows the request tells the mail hook, which
// only sees the message. They are taken out before anything is stored.
const (
	headerRequestID = "X-Groundwork-Request-Id"
	headerUser      = "X-Groundwork-User"
	headerExpires   = "X-Groundwork-Expires"
)

// priorityEnd runs after the hooks of application code.
const priorityEnd = 9999

// maxAttachmentBytes bounds the attachments of one mail: they are held in the
// database until it is sent.
const maxAttachmentBytes = 10 << 20

// bindMails sends PocketBase's own mails (and those that application code sends
// through PocketBase's mailer) as critical jobs: stored before the answer, sent
// by the same providers as everything else, and their content never kept.
func (g *groundwork) bindMails() {
	app := g.app

	app.OnMailerSend().Bind(&hook.Handler[*core.MailerEvent]{
		Id: "groundwork.mails.enqueue", Priority: priorityEnd, Func: g.enqueueMail})

	// What the message is about, told by the hooks that know.
	about := func(e *core.MailerRecordEvent) error {
		if e.Message.Headers == nil {
			e.Message.Headers = map[string]string{}
		}
		e.Message.Headers[headerUser] = e.Record.Id
		if id := requestlog.RecordRequestID(e.Record); id != "" {
			e.Message.Headers[headerRequestID] = id
		}
		return e.Next()
	}
	app.OnMailerRecordPasswordResetSend().Bind(&hook.Handler[*core.MailerRecordEvent]{Id: "groundwork.mails.about", Func: about})
	app.OnMailerRecordVerificationSend().Bind(&hook.Handler[*core.MailerRecordEvent]{Id: "groundwork.mails.about", Func: about})
	app.OnMailerRecordEmailChangeSend().Bind(&hook.Handler[*core.MailerRecordEvent]{Id: "groundwork.mails.about", Func: about})
	app.OnMailerRecordAuthAlertSend().Bind(&hook.Handler[*core.MailerRecordEvent]{Id: "groundwork.mails.about", Func: about})
	app.OnMailerRecordOTPSend().Bind(&hook.Handler[*core.MailerRecordEvent]{
		Id: "groundwork.mails.about", Func: func(e *core.MailerRecordEvent) error {
			if e.Message.Headers == nil {
				e.Message.Headers = map[string]string{}
			}
			life := e.Record.Collection().OTP.DurationTime()
			e.Message.Headers[headerExpires] = strconv.FormatInt(time.Now().Add(life).UnixMilli(), 10)
			return about(e)
		}})

	// PocketBase sends these three after its answer, from a goroutine: a kill in
	// between would lose them. Here the mail is stored first. The hooks run
	// last and end the chain, so that application hooks still see every request.
	app.OnRecordRequestPasswordResetRequest().Bind(&hook.Handler[*core.RecordRequestPasswordResetRequestEvent]{
		Id: "groundwork.mails.passwordReset", Priority: priorityEnd,
		Func: func(e *core.RecordRequestPasswordResetRequestEvent) error {
			requestlog.SetRecordRequestID(e.Record, requestlog.ID(e.RequestEvent))
			if err := mails.SendRecordPasswordReset(e.App, e.Record); err != nil {
				return fmt.Errorf("enqueue password reset mail: %w", err)
			}
			return afterCommit(e.App, func() error {
				guardResend(e.App, "@limitPasswordResetEmail_"+e.Record.Collection().Id+e.Record.Id)
				return e.NoContent(http.StatusNoContent)
			})
		}})
	app.OnRecordRequestVerificationRequest().Bind(&hook.Handler[*core.RecordRequestVerificationRequestEvent]{
		Id: "groundwork.mails.verification", Priority: priorityEnd,
		Func: func(e *core.RecordRequestVerificationRequestEvent) error {
			if e.Record.Verified() {
				return e.Next()
			}
			requestlog.SetRecordRequestID(e.Record, requestlog.ID(e.RequestEvent))
			if err := mails.SendRecordVerification(e.App, e.Record); err != nil {
				return fmt.Errorf("enqueue verification mail: %w", err)
			}
			return afterCommit(e.App, func() error {
				guardResend(e.App, "@limitVerificationEmail_"+e.Record.Collection().Id+e.Record.Id)
				return e.NoContent(http.StatusNoContent)
			})
		}})
	app.OnRecordRequestOTPRequest().Bind(&hook.Handler[*core.RecordCreateOTPRequestEvent]{
		Id: "groundwork.mails.otp", Priority: priorityEnd, Func: requestOTP})
	app.OnRecordRequestEmailChangeRequest().Bind(&hook.Handler[*core.RecordRequestEmailChangeRequestEvent]{
		Id: "groundwork.mails.emailChange", Func: func(e *core.RecordRequestEmailChangeRequestEvent) error {
			requestlog.SetRecordRequestID(e.Record, requestlog.ID(e.RequestEvent))
			return e.Next()
		}})

	app.OnServe().Bind(&hook.Handler[*core.ServeEvent]{
		Id: "groundwork.mails.timing", Func: func(e *core.ServeEvent) error {
			e.Router.Bind(&hook.Handler[*core.RequestEvent]{
				Id: "groundwork.mails.timing", Func: g.evenTiming})
			return e.Next()
		}})

	app.OnRecordEnrich(notifications.CollectionDeliveries).Bind(&hook.Handler[*core.RecordEnrichEvent]{
		Id: "groundwork.mails.show", Func: func(e *core.RecordEnrichEvent) error {
			if g.sender != nil && e.RequestInfo != nil && e.RequestInfo.HasSuperuserAuth() {
				if view := g.sender.ShownMail(e.Record.Id); view != nil {
					e.Record.Set("rendered", view)
				}
			}
			return e.Next()
		}})
}

// maxLiveOTPs is PocketBase's own guard: with this many unexpired codes for one
// account the last one is used again, and nothing is sent.
const maxLiveOTPs = 9

// requestOTP creates the code and its mail in one transaction.
func requestOTP(e *core.RecordCreateOTPRequestEvent) error {
	if e.Record == nil {
		return e.Next() // PocketBase answers unknown addresses with a made-up id
	}
	requestlog.SetRecordRequestID(e.Record, requestlog.ID(e.RequestEvent))
	otps, err := e.App.FindAllOTPsByRecord(e.Record)
	if err != nil {
		return e.InternalServerError("The earlier codes cannot be read.", err)
	}
	live := 0
	for _, otp := range otps {
		if !otp.HasExpired(e.Collection.OTP.DurationTime()) {
			live++
		}
	}
	if live > maxLiveOTPs {
		return afterCommit(e.App, func() error { return e.JSON(http.StatusOK, map[string]string{"otpId": otps[0].Id}) })
	}
	var id string
	err = e.App.RunInTransaction(func(txApp core.App) error {
		otp := core.NewOTP(txApp)
		otp.SetCollectionRef(e.Record.Collection().Id)
		otp.SetRecordRef(e.Record.Id)
		otp.SetPassword(e.Password)
		if err := txApp.Save(otp); err != nil {
			return fmt.Errorf("save code: %w", err)
		}
		id = otp.Id
		return mails.SendRecordOTP(txApp, e.Record, otp.Id, e.Password)
	})
	if err != nil {
		return fmt.Errorf("enqueue code mail: %w", err)
	}
	return afterCommit(e.App, func() error { return e.JSON(http.StatusOK, map[string]string{"otpId": id}) })
}

// afterCommit runs answer now, or once the transaction is committed that a hook of
// the application has opened around the request: what such a hook refuses must not
// have been answered.
func afterCommit(app core.App, answer func() error) error {
	tx := app.TxInfo()
	if tx == nil {
		return answer()
	}
	tx.OnComplete(func(txErr error) error {
		if txErr != nil {
			return nil // the hook's own error is the answer
		}
		return answer()
	})
	return nil
}

// guardResend keeps PocketBase's two minutes between two such mails to one
// account. The keys are PocketBase's: its handler reads them.
func guardResend(app core.App, key string) {
	store := app.Store()
	store.Set(key, struct{}{})
	time.AfterFunc(2*time.Minute, func() { store.Remove(key) })
}

// enqueueMail is the end of PocketBase's mailer: instead of an SMTP session in
// the request, the message becomes a job in the caller's transaction.
func (g *groundwork) enqueueMail(e *core.MailerEvent) error {
	if g.sender == nil || !g.ready(e.App) {
		return e.Next() // a command on a folder without our tables
	}
	mail, err := mailOf(e.Message)
	if err != nil {
		return err
	}
	recipients := e.Message.To
	if len(recipients) == 0 {
		return errors.New("this mail has no recipient")
	}
	return e.App.RunInTransaction(func(txApp core.App) error {
		for i, to := range recipients {
			one := *mail
			one.To, one.ToName = to.Address, to.Name
			if i > 0 {
				one.Email.Cc, one.Email.Bcc = nil, nil // they get it once
			}
			if _, err := g.sender.EnqueueMail(txApp, one); err != nil {
				return err
			}
		}
		return nil
	})
}

// mailOf translates PocketBase's message. From is left to the provider when it
// is PocketBase's default sender.
func mailOf(m *mailer.Message) (*notifications.Mail, error) {
	mail := &notifications.Mail{Email: notifications.Email{
		From: m.From.String(), Subject: m.Subject, HTML: m.HTML, Text: m.Text, Headers: map[string]string{}}}
	for key, value := range m.Headers {
		switch http.CanonicalHeaderKey(key) {
		case http.CanonicalHeaderKey(headerRequestID):
			mail.RequestID = value
		case http.CanonicalHeaderKey(headerUser):
			mail.UserID = value
		case http.CanonicalHeaderKey(headerExpires):
			if ms, err := strconv.ParseInt(value, 10, 64); err == nil {
				mail.ExpiresAt = time.UnixMilli(ms)
			}
		case "Reply-To":
			mail.Email.ReplyTo = value
		default:
			mail.Email.Headers[key] = value
		}
	}
	if m.From.Address == "" {
		mail.Email.From = ""
	}
	for _, cc := range m.Cc {
		mail.Email.Cc = append(mail.Email.Cc, cc.String())
	}
	for _, bcc := range m.Bcc {
		mail.Email.Bcc = append(mail.Email.Bcc, bcc.String())
	}
	total := 0
	read := func(files map[string]io.Reader, inline bool) error {
		for name, r := range files {
			raw, err := io.ReadAll(io.LimitReader(r, maxAttachmentBytes+1))
			if err != nil {
				return fmt.Errorf("read attachment %s: %w", name, err)
			}
			if total += len(raw); total > maxAttachmentBytes {
				return fmt.Errorf("the attachments of a mail may have %d MB together", maxAttachmentBytes>>20)
			}
			mail.Email.Attachments = append(mail.Email.Attachments, notifications.Attachment{Name: name, Inline: inline, Bytes: raw})
		}
		return nil
	}
	if err := read(m.Attachments, false); err != nil {
		return nil, err
	}
	if err := read(m.InlineAttachments, true); err != nil {
		return nil, err
	}
	return mail, nil
}

// answerFloor is when the requests below are answered, at the earliest: longer
// than storing a mail takes, so that a known address and an unknown one are
// answered in the same time.
const answerFloor = 100 * time.Millisecond

// evenTiming holds the answer to requests that must not tell whether an address
// is known until answerFloor has passed.
func (g *groundwork) evenTiming(e *core.RequestEvent) error {
	path := e.Request.URL.Path
	if e.Request.Method != http.MethodPost || !strings.HasPrefix(path, "/api/collections/") {
		return e.Next()
	}
	held := &heldWriter{ResponseWriter: e.Response, until: time.Now().Add(g.cfg.answerFloor), request: e.Request}
	switch path[strings.LastIndexByte(path, '/'):] {
	case "/request-password-reset", "/request-verification", "/request-otp", "/request-phone-otp", "/request-phone-verification":
	case "/auth-with-otp", "/confirm-phone-verification":
		// That a code was right may be known at once. That it was wrong takes the same
		// time whether or not there is an account behind it.
		held.refusalsOnly = true
	default:
		return e.Next()
	}
	e.Response = held
	defer func() { e.Response = held.ResponseWriter }()
	err := e.Next()
	if err != nil {
		held.hold()
	}
	return err
}

// heldWriter delays the first byte of an answer.
type heldWriter struct {
	http.ResponseWriter
	until   time.Time
	request *http.Request
	held    bool

	// refusalsOnly lets answers with a status below 400 pass.
	refusalsOnly bool
}

// hold waits for the time, or for the client to go away.
func (w *heldWriter) hold() {
	if w.held {
		return
	}
	w.held = true
	timer := time.NewTimer(time.Until(w.until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.request.Context().Done():
	}
}

func (w *heldWriter) WriteHeader(status int) {
	if w.refusalsOnly && status < http.StatusBadRequest {
		w.held = true
	}
	w.hold()
	w.ResponseWriter.WriteHeader(status)
}

func (w *heldWriter) Write(b []byte) (int, error) { w.hold(); return w.ResponseWriter.Write(b) }

// Unwrap lets http.ResponseController and PocketBase reach the real writer.
func (w *heldWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
