package hold

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Parameters of argon2id. The password is random and long, so they need not
// slow down a guesser; they bound what a login costs us.
const (
	argonTime   = 2
	argonMemory = 19 * 1024 // KiB
	argonPrefix = "$argon2id$v=19$m=19456,t=2,p=1$"
	saltSize    = 16
	hashSize    = 32
)

// SetPassword makes a new random password, stores its hash in file (mode 0600)
// and returns it. It replaces an earlier one, whose sessions all end.
func SetPassword(file string) (password string, err error) {
	password = newPassword()
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	stored := passwordHash{salt, hashPassword(password, salt)}
	if err := replaceSecret(file, []byte(stored.String()+"\n")); err != nil {
		return "", fmt.Errorf("store password: %w", err)
	}
	return password, nil
}

// newPassword has 120 random bits, in groups that can be typed.
func newPassword() string {
	text := strings.ToLower(rand.Text())[:24]
	return text[:6] + "-" + text[6:12] + "-" + text[12:18] + "-" + text[18:]
}

func hashPassword(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, argonTime, argonMemory, 1, hashSize)
}

// passwordHash is what the password file holds.
type passwordHash struct{ salt, hash []byte }

func (p passwordHash) String() string {
	enc := base64.RawStdEncoding.EncodeToString
	return argonPrefix + enc(p.salt) + "$" + enc(p.hash)
}

var errNoPassword = errors.New("no password is set: `tidings hold password` makes one")

func loadPassword(file string) (passwordHash, error) {
	content, err := readSecret(file)
	if errors.Is(err, fs.ErrNotExist) {
		return passwordHash{}, errNoPassword
	}
	if err != nil {
		return passwordHash{}, fmt.Errorf("load password: %w", err)
	}
	bad := fmt.Errorf("load password: %s does not hold a hash that this version made: `tidings hold password` makes a new one", file)
	text, ok := strings.CutPrefix(strings.TrimSpace(string(content)), argonPrefix)
	if !ok {
		return passwordHash{}, bad
	}
	salt64, hash64, _ := strings.Cut(text, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(salt64)
	hash, err2 := base64.RawStdEncoding.DecodeString(hash64)
	if err1 != nil || err2 != nil || len(salt) != saltSize || len(hash) != hashSize {
		return passwordHash{}, bad
	}
	return passwordHash{salt, hash}, nil
}

func (p passwordHash) matches(password string) bool {
	return subtle.ConstantTimeCompare(p.hash, hashPassword(password, p.salt)) == 1
}
