// Package email sends e-mail by SMTP.
//
// It owns the SMTP session (pooled connections, one session for many mails),
// the MIME message and the translation of a server's replies into outcomes. It
// retries nothing and stores nothing: package notifications does.
//
// Protocol: RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 3463 and
// RFC 5248 (enhanced status codes).
package email
