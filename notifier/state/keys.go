package state

import (
	"crypto/sha256"
	"encoding/binary"
)

// Prefixes of the keys, each with its owner, the rest of the key, and the value. Keys
// with the prefix "c/" belong to notifier/counter.
const (
	Cooldowns     = "a/g/" // notifier, announce sink: <repository hash> -> last post of a repository
	PostImages    = "a/i/" // notifier, announce sink: <record key><number> -> image that a post is about
	Posts         = "a/l/" // notifier, announce sink: <record key> -> post
	Announcements = "a/p/" // notifier, announce sink: <image hash> -> posts of a digest in a repository
	PostRefs      = "a/r/" // notifier/publication: <record key> -> nothing, the document gets the reference to its post
	PostedTags    = "a/t/" // notifier, announce sink: <tag hash> -> digests with a post that names the tag
	Waiting       = "a/w/" // notifier, announce sink: <repository hash or zeros><image hash> -> version that waits to be announced
	Retractions   = "a/x/" // notifier, announce sink: <record key> -> post that is to be deleted
	DeadLetters   = "d/"   // notifier: <sink>[/pulls] 0x00 <sequence number> -> dead letter
	VersionOfRepo = "e/r/" // notifier/versions: <repository hash><time><version> -> nothing
	VersionByTime = "e/t/" // notifier/versions: <time><repository hash><version> -> repository
	Versions      = "e/v/" // notifier/versions: <repository hash><version> -> announced version
	Forgotten     = "f/"   // notifier/forgotten: owners and manifests whose records were deleted at the request of the owner
	Backfilled    = "g/b/" // notifier/backfill: <repository> -> nothing, its events are in the journal
	PurgedImages  = "g/i/" // notifier/purged: <image hash> -> nothing, its records were removed by a purge
	PushedSince   = "g/n/" // notifier/purged: <repository> -> last purge after which it was pushed to
	Purged        = "g/p/" // notifier/purged: <repository> -> last purge that the records sink has completed
	PurgedUpTo    = "g/u/" // notifier/purged: <repository> -> last purge
	Pauses        = "h/"   // notifier/runner: <sink> -> pause of a sink by an operator
	InboundBrief  = "k/b/" // notifier/inbound: like InboundBySeq, for notifications of unlisted accounts
	InboundByName = "k/n/" // notifier/inbound: <token or key> -> inbound notification
	InboundBySeq  = "k/s/" // notifier/inbound: <sequence number>/<token or key> -> nothing
	Ledger        = "m/"   // notifier/ledger: <digest><owner> -> claims and record keys
	ParkedOwners  = "o/d/" // notifier/parked: <handle> -> DID that its parked pushes get
	Parked        = "o/p/" // notifier/parked: <handle> 0x00 <sequence number> -> push whose owner is not resolved
	Pushes        = "p/"   // notifier: <sequence number>/<part> -> row of a push
	StatsRecords  = "s/"   // notifier/statsrecords: <record key> -> record that the account has
	Recount       = "t/"   // notifier/usage: as Usage, while usage is recounted
	Usage         = "u/"   // notifier/usage: layers of manifests, references to layers, and totals by owner
	Private       = "v/"   // notifier: <image hash> -> nothing, the image is private
	Listed        = "y/"   // notifier/reconcile: <digest> <owner> -> records that the account lists, while stores are compared
)

// Single keys of the notifier.
var (
	AnnounceOutbox  = []byte("b/announce")  // posts that are being sent
	AnnounceDecided = []byte("b/decided")   // events that the announce sink has decided about
	AnnounceQueue   = []byte("b/waiting")   // versions that wait for the next summary
	AnnounceDay     = []byte("b/day")       // posts of the day
	AnnounceForget  = []byte("b/forget")    // owner or repository whose posts are being deleted
	PostsListed     = []byte("b/listed")    // exists once the posts of earlier versions of the program have rows
	RecordsOutbox   = []byte("b/records")   // layer records that are being sent
	RecordsBatched  = []byte("b/gathered")  // sequence number of the last event in a batch of the records sink
	BackfillJob     = []byte("b/backfill")  // the last backfill
	DescribeCursor  = []byte("b/described") // sequence number of the last push whose description was added
	RemoteOutbox    = []byte("b/remote")    // calls that are being sent to the hold of remote
	RemoteTaken     = []byte("b/reported")  // sequence number of the last event that was taken for a call
	ReconcilePhase  = []byte("b/reconcile") // phase of an unfinished reconciliation
	RebuildReason   = []byte("b/rebuild")   // exists while the ledger is to be rebuilt
	AccountRevision = []byte("b/rev")       // revision of the repo after the last batch
	AccountFolder   = []byte("b/account")   // Config.AccountFolder at the last start
	JournalID       = []byte("b/journal")   // id of the journal at the last start
	DataFolder      = []byte("b/folder")    // Config.DataFolder at the last start
	UsageBuilt      = []byte("b/usage")     // how far the usage of an earlier ledger was counted
	StatsRound      = []byte("b/stats")     // last round of notifier/statsrecords
	Publication     = []byte("b/site")      // where the record of notifier/publication is
	PublicOptions   = []byte("b/gate")      // Config.PublicOptions at the last start
)

// ImageKey is a key for one digest in one repository: prefix and the first half of
// their SHA-256.
func ImageKey(prefix, repository, digest string) []byte {
	h := sha256.Sum256([]byte(repository + "\x00" + digest))
	return append([]byte(prefix), h[:16]...)
}

// SeqKey is a key for an event: prefix, the sequence number in big endian, and
// suffix.
func SeqKey(prefix string, seq uint64, suffix string) []byte {
	key := make([]byte, 0, len(prefix)+8+len(suffix))
	key = append(key, prefix...)
	key = binary.BigEndian.AppendUint64(key, seq)
	return append(key, suffix...)
}
