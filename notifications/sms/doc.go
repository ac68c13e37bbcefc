// Package sms sends text messages by Twilio's Programmable Messaging API.
//
// It owns the request, the translation of Twilio's answers and status callbacks
// into outcomes and receipts, the check of Twilio's signature and the meaning of
// the words STOP, START and HELP. It stores nothing and serves no route: package
// hooks does, with package notifications.
//
// There are two senders, [Transactional] and [Promotional], with no send method
// in common. What they share is generic over the kind of text, so that not even
// inside this package can a text of one kind reach a sender of the other.
//
// Protocol: https://www.twilio.com/docs/messaging/api/message-resource,
// https://www.twilio.com/docs/api/errors,
// https://www.twilio.com/docs/usage/security#validating-requests.
package sms
