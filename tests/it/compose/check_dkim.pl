# Verifies the RSA signatures of messages with Mail::DKIM, which knows no Ed25519.
#
# Reads lines of three fields, parted by tabs: the records as a zone would hold them and how many signatures there must be (JSON),
# a field for others, and the message (base64). Prints what is wrong, ends with 1 if anything is.
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

# What is expected is the same for many messages, and this parser of JSON is slow.
my %told;
sub told {
    my ($text) = @_;
    return $told{$text} //= do {
        my $case = decode_json($text);
        my @records = map { Net::DNS::RR->new($_) } @{ $case->{zone} };
        +{ %$case, records => { map { $_->owner . '.' => $_ } @records } };
    };
}

my ($messages, $rsa, $others, $wrong) = (0, 0, 0, 0);
while (my $line = <STDIN>) {
    my ($expected, undef, $message) = split /\t/, $line;
    my $case = told($expected);
    %records = %{ $case->{records} };
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT(decode_base64($message));
    $verifier->CLOSE;
    my @all = $verifier->signatures;
    my @rsa = grep { $_->algorithm eq 'rsa-sha256' } @all;
    my @others = grep { $_->algorithm eq 'ed25519-sha256' } @all;
    my @bad = grep { $_->result ne 'pass' } @rsa;
    $messages++;
    $rsa += @rsa;
    $others += @others;
    if (@rsa != $case->{rsa} || @others != $case->{ed25519} || @bad) {
        $wrong++;
        my $why = join ', ', map { $_->result_detail } @bad;
        printf "message %d: %d RSA signatures instead of %d; %s\n", $messages, scalar @rsa, $case->{rsa}, $why if $wrong <= 10;
    }
}
print "$messages messages, $rsa RSA signatures verified, $others others not, $wrong wrong\n";
exit($wrong ? 1 : 0);
