package providertest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

// Mail is a message as the standard library's parser reads it, which shares no
// code with the builder under test.
type Mail struct {
	Header mail.Header

	// Text and HTML are the decoded bodies; empty when there is none.
	Text, HTML string

	// Files are attachments and inline files, in their order.
	Files []File

	// Structure is the tree of content types, such as
	// "multipart/mixed(multipart/alternative(text/plain text/html) image/png)".
	Structure string
}

// File is an attachment or inline file.
type File struct {
	Name, ContentType, ContentID string
	Inline                       bool
	Bytes                        []byte
}

// Get returns a header field with its encoded words decoded.
func (m *Mail) Get(name string) string {
	v := m.Header.Get(name)
	if s, err := new(mime.WordDecoder).DecodeHeader(v); err == nil {
		return s
	}
	return v
}

// ParseMail parses a message.
func ParseMail(raw []byte) (*Mail, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse mail: %w", err)
	}
	m := &Mail{Header: msg.Header}
	m.Structure, err = m.part(msg.Header.Get, msg.Body)
	if err != nil {
		return nil, fmt.Errorf("parse mail: %w", err)
	}
	return m, nil
}

func (m *Mail) part(header func(string) string, body io.Reader) (structure string, err error) {
	contentType := header("Content-Type")
	if contentType == "" {
		contentType = "text/plain"
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", fmt.Errorf("content type %q: %w", contentType, err)
	}
	if strings.HasPrefix(kind, "multipart/") {
		var parts []string
		r := multipart.NewReader(body, params["boundary"])
		for {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return kind + "(" + strings.Join(parts, " ") + ")", nil
			}
			if err != nil {
				return "", fmt.Errorf("%s: %w", kind, err)
			}
			s, err := m.part(p.Header.Get, p)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
		}
	}
	switch encoding := strings.ToLower(header("Content-Transfer-Encoding")); encoding {
	case "", "7bit", "8bit":
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	default:
		return "", fmt.Errorf("%s: content transfer encoding %q", kind, encoding)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return "", fmt.Errorf("%s: %w", kind, err)
	}
	disposition, names := "", map[string]string(nil)
	if d := header("Content-Disposition"); d != "" {
		if disposition, names, err = mime.ParseMediaType(d); err != nil {
			return "", fmt.Errorf("content disposition %q: %w", d, err)
		}
	}
	switch {
	case disposition == "" && kind == "text/plain":
		m.Text += string(content)
	case disposition == "" && kind == "text/html":
		m.HTML += string(content)
	default:
		m.Files = append(m.Files, File{Name: names["filename"], ContentType: kind, ContentID: strings.Trim(header("Content-ID"), "<>"),
			Inline: disposition == "inline", Bytes: content})
	}
	return kind, nil
}
