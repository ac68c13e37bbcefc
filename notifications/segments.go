package notifications

import "unicode/utf16"

// Encodings of [Segments].
const (
	EncodingGSM7 = "GSM-7" // the telephone alphabet, 7 bits a character
	EncodingUCS2 = "UCS-2" // everything else, 16 bits a character, two for an emoji
)

// What fits into a message that is sent alone, and into each part of a longer
// one, whose header takes the rest. In septets, respectively 16-bit units.
const (
	gsmAlone, gsmPart   = 160, 153
	ucs2Alone, ucs2Part = 70, 67
)

// Segments returns into how many parts a telephone network splits a text, which
// is what carriers charge for, and the encoding that decides it: one character
// outside the telephone alphabet makes the whole text UCS-2, with parts of less
// than half the length. An empty text has no part.
//
// Alphabet: 3GPP TS 23.038, section 6.2.1.
func Segments(text string) (n int, encoding string) {
	units := make([]int, 0, len(text)) // of each character
	for _, r := range text {
		width := gsmWidth(r)
		if width == 0 {
			return ucs2Segments(text), EncodingUCS2
		}
		units = append(units, width)
	}
	return parts(units, gsmAlone, gsmPart), EncodingGSM7
}

func ucs2Segments(text string) int {
	units := make([]int, 0, len(text))
	for _, r := range text {
		units = append(units, max(utf16.RuneLen(r), 1))
	}
	return parts(units, ucs2Alone, ucs2Part)
}

// parts counts the parts of characters of these widths. A character is not split:
// one of two units that does not fit at the end of a part opens the next.
func parts(units []int, alone, part int) int {
	total := 0
	for _, u := range units {
		total += u
	}
	switch {
	case total == 0:
		return 0
	case total <= alone:
		return 1
	}
	n, used := 1, 0
	for _, u := range units {
		if used+u > part {
			n, used = n+1, 0
		}
		used += u
	}
	return n
}

// gsmWidth is how many septets a character takes in the telephone alphabet; 0
// when it is not in it. Those of the extension table are announced by another.
func gsmWidth(r rune) int {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return 1
	}
	switch r {
	case '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å',
		'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', 'Æ', 'æ', 'ß', 'É',
		' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/',
		':', ';', '<', '=', '>', '?', '¡', 'Ä', 'Ö', 'Ñ', 'Ü', '§', '¿', 'ä', 'ö', 'ñ', 'ü', 'à':
		return 1
	case '\f', '^', '{', '}', '\\', '[', '~', ']', '|', '€':
		return 2
	default:
		return 0
	}
}
