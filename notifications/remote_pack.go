package notifications

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// packed is JSON, compressed, as base64.
type packed string

// maxPacked bounds what a packed text unfolds to: a broken row must not fill the
// memory.
const maxPacked = 64 << 20

// pack encodes v. Texts that are not valid UTF-8 come back with U+FFFD in the place
// of what is not.
func pack(v any) (packed, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode: %w", err)
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		return "", fmt.Errorf("compress: %w", err)
	}
	if _, err := w.Write(raw); err != nil {
		return "", fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("compress: %w", err)
	}
	return packed(base64.RawStdEncoding.EncodeToString(b.Bytes())), nil
}

// unpack is the way back, into what v points to.
func (p packed) unpack(v any) error {
	compressed, err := base64.RawStdEncoding.DecodeString(string(p))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	r := flate.NewReader(bytes.NewReader(compressed))
	raw, err := io.ReadAll(io.LimitReader(r, maxPacked+1))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if len(raw) > maxPacked {
		return errors.New("unpack: it is too large")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

// EraseFromHandover takes a person out of the args of a job between machines.
// changed says that they were in it; the other people stay.
func EraseFromHandover(kind string, args json.RawMessage, user string) (erased json.RawMessage, changed bool, err error) {
	switch kind {
	case HandoverArgs{}.Kind():
		var a HandoverArgs
		var parts []handoverPart
		if err := errors.Join(json.Unmarshal(args, &a), a.Parts.unpack(&parts)); err != nil {
			return nil, false, fmt.Errorf("read handover: %w", err)
		}
		rest := parts[:0:0]
		for _, p := range parts {
			if p.Message != nil && p.Message.Target.UserID != user {
				rest = append(rest, p)
			}
		}
		if len(rest) == len(parts) {
			return nil, false, nil
		}
		if a.Parts, err = pack(rest); err != nil {
			return nil, false, err
		}
		a.Messages = len(rest)
		erased, err = json.Marshal(a)
	case ResultArgs{}.Kind():
		var a ResultArgs
		var answers []answer
		if err := errors.Join(json.Unmarshal(args, &a), a.Packed.unpack(&answers)); err != nil {
			return nil, false, fmt.Errorf("read result: %w", err)
		}
		rest := answers[:0:0]
		for _, one := range answers {
			if one.User != user {
				rest = append(rest, one)
			}
		}
		if len(rest) == len(answers) {
			return nil, false, nil
		}
		if a.Packed, err = pack(rest); err != nil {
			return nil, false, err
		}
		a.Answers = len(rest)
		erased, err = json.Marshal(a)
	default:
		return nil, false, nil
	}
	return erased, err == nil, err
}
