// Package webpush sends push messages to browsers by the Web Push protocol.
//
// It owns the request (github.com/SherClockHolmes/webpush-go encrypts and makes
// it), the server's key pair (VAPID), the connections, and the translation of the
// push services' answers into outcomes. It retries nothing and stores nothing:
// package notifications does.
//
// Unlike all other channels this one has no provider: each browser names the
// server that carries its messages, and whoever is signed in may name any. So
// connections go to public addresses only, redirects are not followed, and what a
// single server answers, or fails to answer, concerns the devices that named it
// and nobody else.
//
// Protocol: RFC 8030 (delivery), RFC 8291 (encryption), RFC 8292 (VAPID).
package webpush
