"""What a sequencer gives back -> strands: FASTQ files, orientation, trimming, clustering, consensus, recovery."""
