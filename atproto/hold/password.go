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

	"github.com/tidings-dev/tidings/internal/private"
)

// argonCost is what a hash by argon2id costs: us for a login, and a guesser.
type argonCost struct{ memory, time uint32 } // KiB, and passes over them

var (
	// newCost is OWASP's choice with the least memory. The password is random
	// and long, so a guesser is not the worry.
	newCost = argonCost{7 * 1024, 5}

	// mostCost bounds what a file may make a login cost.
	mostCost = argonCost{64 * 1024, 10}
)

const (
	argonFormat = "$argon2id$v=19$m=%d,t=%d,p=1$"
	saltSize    = 16
	hashSize    = 32
)

// SetPassword makes a new random password, stores its hash in file (mode 0600)
// and returns it. It replaces an earlier one, whose sessions all end.
func SetPassword(file string) (password string, err error) {
	password = newPassword()
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	stored := passwordHash{newCost, salt, newCost.hash(password, salt)}
	if err := private.ReplaceFile(file, []byte(stored.String()+"\n")); err != nil {
		return "", fmt.Errorf("store password: %w", err)
	}
	return password, nil
}

// newPassword has 120 random bits, in groups that can be typed.
func newPassword() string {
	text := strings.ToLower(rand.Text())[:24]
	return text[:6] + "-" + text[6:12] + "-" + text[12:18] + "-" + text[18:]
}

func (c argonCost) hash(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, c.time, c.memory, 1, hashSize)
}

// passwordHash is what the password file holds.
type passwordHash struct {
	cost       argonCost
	salt, hash []byte
}

func (p passwordHash) String() string {
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf(argonFormat, p.cost.memory, p.cost.time) + enc(p.salt) + "$" + enc(p.hash)
}

var errNoPassword = errors.New("no password is set: `tidings hold password` makes one")

func loadPassword(file string) (passwordHash, error) {
	content, err := private.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return passwordHash{}, errNoPassword
	}
	if err != nil {
		return passwordHash{}, fmt.Errorf("load password: %w", err)
	}
	stored, ok := parsePasswordHash(strings.TrimSpace(string(content)))
	if !ok {
		return passwordHash{}, fmt.Errorf("load password: %s does not hold a hash that this version made: `tidings hold password` makes a new one", file)
	}
	return stored, nil
}

// parsePasswordHash reads a hash with the cost that it was made at.
func parsePasswordHash(text string) (p passwordHash, ok bool) {
	fields := strings.Split(text, "$")
	if len(fields) != 6 {
		return p, false
	}
	prefix := strings.Join(fields[:4], "$") + "$"
	if _, err := fmt.Sscanf(prefix, argonFormat, &p.cost.memory, &p.cost.time); err != nil {
		return p, false
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(fields[4])
	p.hash, err2 = base64.RawStdEncoding.DecodeString(fields[5])
	bounded := p.cost.time > 0 && p.cost.time <= mostCost.time && p.cost.memory <= mostCost.memory
	return p, err1 == nil && err2 == nil && bounded && len(p.salt) == saltSize && len(p.hash) == hashSize
}

func (p passwordHash) matches(password string) bool {
	return subtle.ConstantTimeCompare(p.hash, p.cost.hash(password, p.salt)) == 1
}
