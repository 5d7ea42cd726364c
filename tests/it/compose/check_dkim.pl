# Verifies the RSA signatures of messages with Mail::DKIM, which knows no Ed25519.
#
# Takes a file of JSON lines: the message (base64), the records as a zone would hold them, and how many RSA signatures there
# must be. Prints what is wrong, ends with 1 if anything is.
use strict;
use warnings;
use JSON::PP;
use MIME::Base64;
use Mail::DKIM::Verifier;
use Mail::DKIM::DNS;
use Net::DNS;

my %records;
{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name, $type) = @_;
        return $records{"$name."} // ();
    };
}

open my $cases, '<', $ARGV[0] or die "$ARGV[0]: $!";
my ($total, $wrong) = (0, 0);
while (my $line = <$cases>) {
    my $case = decode_json($line);
    %records = ();
    for my $zone (@{ $case->{zone} }) {
        my $record = Net::DNS::RR->new($zone);
        $records{ $record->owner . '.' } = $record;
    }
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT(decode_base64($case->{bytes}));
    $verifier->CLOSE;
    my @rsa = grep { $_->algorithm eq 'rsa-sha256' } $verifier->signatures;
    my @bad = grep { $_->result ne 'pass' } @rsa;
    $total += @rsa;
    if (@rsa != $case->{rsa} || @bad) {
        $wrong++;
        my $why = join ', ', map { $_->result_detail } @bad;
        printf "message %d: %d RSA signatures instead of %d; %s\n", $., scalar @rsa, $case->{rsa}, $why if $wrong <= 10;
    }
}
print "$total RSA signatures, $wrong wrong\n";
exit($wrong ? 1 : 0);
