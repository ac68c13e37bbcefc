// Package apns sends push messages to Apple devices by the Apple Push
// Notification service.
//
// It owns the request (headers and payload), the provider token, the
// translation of Apple's answers into outcomes, and the HTTP/2 connections. The
// connections are its own, because net/http's transport queues requests where
// nobody sees them once the peer's stream limit is reached, does not tell what
// left from what did not, and costs several times the CPU for a request. Reading
// keys and certificates and signing tokens is github.com/sideshow/apns2's.
//
// It retries nothing and stores nothing: package notifications does. Two things
// that the peer has certainly not processed are handed over again at once, one
// time: a request that it refused unread (REFUSED_STREAM, or above the last
// stream of a GOAWAY), and one whose provider token had expired.
//
// Protocol: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
// and its neighbours, RFC 9113 (HTTP/2), RFC 7541 (HPACK).
package apns
